// Package race replaces internal/race, which only the standard library may import.
package race

// Enabled is false: these tests run as without the race detector.
const Enabled = false

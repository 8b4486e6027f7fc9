// Package race stands in for the standard library's, which only that may import.
package race

// Enabled tells whether the race detector is there: it is not, for these tests.
const Enabled = false

//go:build race

package async

// raceEnabled says whether the race detector is on.
const raceEnabled = true

//go:build !race

package auth

// raceDetector is set where memory and times say nothing.
const raceDetector = false

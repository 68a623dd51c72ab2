//go:build race

package auth

// raceDetector is set where times say nothing.
const raceDetector = true

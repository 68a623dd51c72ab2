package main

import (
	"io"

	"github.com/legation/legation/trial"
)

// tested is what came of the cases of a directory, as JSON has it. Problems and places are those of a report.
type (
	tested struct {
		OK       bool          `json:"ok"` // every case holds, and all were run
		Cases    []testedCase  `json:"cases"`
		Routes   []testedRoute `json:"routes"`
		Problems []reported    `json:"problems"` // of the policy or of the test files
		Error    string        `json:"error,omitempty"`
		Seconds  float64       `json:"seconds"`
	}
	testedCase struct {
		Name     string         `json:"name"`
		At       place          `json:"at"`
		Verdict  trial.Verdict  `json:"verdict"`
		Why      string         `json:"why,omitempty"` // of a skipped case
		Seconds  float64        `json:"seconds"`
		Requests int            `json:"requests"`
		Failure  *testedFailure `json:"failure,omitempty"`
	}
	testedFailure struct {
		Problems []reported `json:"problems"`
		Request  string     `json:"request"`
		Answer   string     `json:"answer,omitempty"`
		Explain  string     `json:"explain,omitempty"`
	}
	testedRoute struct {
		Name    string `json:"name"`
		At      place  `json:"at"`
		Reached int    `json:"reached"`
	}
)

// writeTested writes what came of a run for programs. cause is what kept it from its end, nil where nothing did.
func writeTested(w io.Writer, r *trial.Report, cause error) error {
	t := tested{
		OK: cause == nil && !r.Failed() && !r.Problems.HasErrors(), Cases: []testedCase{}, Routes: []testedRoute{},
		Problems: reportedOf(r.Problems, r.Files), Seconds: r.Took.Seconds(),
	}
	if cause != nil {
		t.Error = cause.Error()
	}
	for _, one := range r.Results {
		c := testedCase{
			Name: one.Name, At: placeOf(one.At, r.Files), Verdict: one.Verdict, Why: one.Why, Seconds: one.Took.Seconds(), Requests: one.Requests,
		}
		if f := one.Failure; f != nil {
			c.Failure = &testedFailure{reportedOf(f.Problems, r.Files), f.Asked, f.Got, f.Explain}
		}
		t.Cases = append(t.Cases, c)
	}
	for _, route := range r.Routes {
		t.Routes = append(t.Routes, testedRoute{route.Name, placeOf(route.At, r.Files), route.Reached})
	}
	return writeJSON(w, t)
}

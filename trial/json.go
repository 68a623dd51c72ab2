package trial

import (
	"encoding/json"
	"io"

	"github.com/legation/legation/policy"
)

// The report as JSON has it.
type (
	told struct {
		OK       bool            `json:"ok"` // every case holds, and all were run
		Cases    []toldCase      `json:"cases"`
		Routes   []Route         `json:"routes"`
		Problems policy.Problems `json:"problems"` // of the policy or of the test files
		Error    string          `json:"error,omitempty"`
		Seconds  float64         `json:"seconds"`
	}
	toldCase struct {
		Name     string       `json:"name"`
		At       policy.Pos   `json:"at"`
		Verdict  Verdict      `json:"verdict"`
		Why      string       `json:"why,omitempty"` // of a skipped case
		Seconds  float64      `json:"seconds"`
		Requests int          `json:"requests"`
		Failure  *toldFailure `json:"failure,omitempty"`
	}
	toldFailure struct {
		Problems policy.Problems `json:"problems"`
		Request  string          `json:"request"`
		Answer   string          `json:"answer,omitempty"`
		Explain  string          `json:"explain,omitempty"`
	}
)

// WriteJSON writes what came of a run for programs. cause is what kept it from its end, nil where nothing did.
func (r *Report) WriteJSON(w io.Writer, cause error) error {
	t := told{
		OK: cause == nil && !r.Failed() && !r.Problems.HasErrors(), Cases: []toldCase{}, Routes: append([]Route{}, r.Routes...),
		Problems: append(policy.Problems{}, r.Problems...), Seconds: r.Took.Seconds(),
	}
	if cause != nil {
		t.Error = cause.Error()
	}
	for _, one := range r.Results {
		c := toldCase{Name: one.Name, At: one.At, Verdict: one.Verdict, Why: one.Why, Seconds: one.Took.Seconds(), Requests: one.Requests}
		if f := one.Failure; f != nil {
			c.Failure = &toldFailure{f.Problems, f.Asked, f.Got, f.Explain}
		}
		t.Cases = append(t.Cases, c)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(t)
}

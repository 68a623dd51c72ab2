package app

import (
	"errors"
	"mime"
	"net/http"
	"time"

	"github.com/legation/legation/control"
	"github.com/legation/legation/diff"
	"github.com/legation/legation/policy"
)

// Candidate is what POST /policy/diff takes: all files of a policy directory, by their slash-separated paths in it.
type Candidate struct {
	Files policy.Files `json:"files"` // base64
}

// Comparison is what POST /policy/diff answers: what serving the candidate would change, or the problems in its way. Values
// that may be secrets are in neither, and nothing is served.
type Comparison struct {
	Diff     *diff.Diff      `json:"diff,omitempty"`
	Problems policy.Problems `json:"problems"`
}

// Bounds of a candidate: what a policy may hold in base64, with names and JSON around it, and how long it may take to come.
const (
	maxCandidate  = policy.MaxTotal/3*4 + 8<<20
	candidateTime = time.Minute
)

// diff compares a candidate with what is being served.
func (a *admin) diff(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		refuse(w, http.StatusMethodNotAllowed, "the method here is POST")
		return
	}
	if !a.comparing.TryLock() { // each takes memory of the size of the policy, several times
		refuse(w, http.StatusTooManyRequests, "another comparison is being made: ask again")
		return
	}
	defer a.comparing.Unlock()
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(candidateTime))
	var wanted Candidate
	if err := readLarge(r, &wanted, `{"files": {NAME: BASE64}}`); err != nil {
		refuse(w, codeOf(err), err.Error())
		return
	}
	served, of := a.p.control.Served()
	if served == nil {
		refuse(w, http.StatusServiceUnavailable, "no whole policy has been loaded yet")
		return
	}
	candidate, problems, err := a.p.control.Try(wanted.Files)
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	c := Comparison{Problems: append(policy.Problems{}, problems...)}
	if candidate != nil {
		c.Diff = diff.Between(side(served, of), side(candidate, wanted.Files))
	}
	answer(w, http.StatusOK, c)
}

func side(c *control.Compiled, files policy.Files) diff.Policy {
	return diff.Policy{Files: files, Model: c.Model, Resources: c.Resources}
}

// readLarge reads a body that holds a policy. That it has to be JSON by its type keeps forms of other sites out.
func readLarge(r *http.Request, into filed, shape string) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return problemf(http.StatusUnsupportedMediaType, "want content-type: application/json")
	}
	err := decodeFiled(r, into)
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return problemf(http.StatusRequestEntityTooLarge, "want a body of at most %d MiB", large.Limit>>20)
	}
	if err != nil {
		return problemf(http.StatusBadRequest, `want %s: %w`, shape, err)
	}
	return nil
}

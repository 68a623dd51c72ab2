package app

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/legation/legation/control"
	"github.com/legation/legation/diff"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/revision"
	"github.com/legation/legation/store"
)

// Revisions is what GET /revisions answers: the history, the last one first.
type Revisions struct {
	Source    string              `json:"source"`           // where the policy comes from: directory or revisions
	Served    int64               `json:"served,omitempty"` // the number of what this process serves
	Pinned    bool                `json:"pinned,omitempty"` // that is a rollback, which holds until the directory changes
	Staged    []control.Staged    `json:"staged,omitempty"` // what some Envoys have of that before the others
	Revisions []revision.Revision `json:"revisions"`
}

// RevisionFiles is what GET /revisions/REV answers. With ?content=true it has the files as well.
type RevisionFiles struct {
	revision.Revision
	Sizes   map[string]int64 `json:"sizes"`             // bytes, by name
	Content policy.Files     `json:"content,omitempty"` // base64
}

// Push is what POST /revisions takes: all files of a policy, and the revision that they build on.
type Push struct {
	Files policy.Files `json:"files"` // base64
	ChangeWanted
}

// ChangeWanted is what POST /revisions/REV/rollback takes.
type ChangeWanted struct {
	Parent  string `json:"parent"`            // a revision, or none for the first one
	By      string `json:"by,omitempty"`      // who wants it
	Message string `json:"message,omitempty"` // and why
	Force   bool   `json:"force,omitempty"`   // though it takes away more than half
}

// ChangeRefused is the answer to a change that is not accepted.
type ChangeRefused struct {
	Error    string             `json:"error"`
	Problems policy.Problems    `json:"problems,omitempty"`
	Shrink   *control.Shrink    `json:"shrink,omitempty"`
	Head     *revision.Revision `json:"head,omitempty"` // the last revision, where it is another than the change builds on
}

// pushTime is how long a push may wait for one that is under way.
const pushTime = 10 * time.Second

// revisionRoutes are the paths about revisions.
func (a *admin) revisionRoutes(mux *http.ServeMux) {
	always := func() string { return "" }
	a.serve(mux, "/revisions/{rev}", map[string]resolver{"GET": a.revision}, always)
	a.serve(mux, "/revisions/{rev}/diff/{other}", map[string]resolver{"GET": a.diffRevisions}, always)
	lists := http.NewServeMux()
	a.serve(lists, "/revisions", map[string]resolver{"GET": a.revisions}, always)
	mux.HandleFunc("/revisions", func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost:
			a.change(w, r, a.push)
		case http.MethodGet, http.MethodHead:
			lists.ServeHTTP(w, r)
		default:
			w.Header().Set("Allow", "GET, HEAD, POST")
			refuse(w, http.StatusMethodNotAllowed, "the methods here are GET, HEAD, POST")
		}
	})
	mux.HandleFunc("/revisions/{rev}/rollback", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", "POST")
			refuse(w, http.StatusMethodNotAllowed, "the method here is POST")
			return
		}
		a.change(w, r, a.rollback)
	})
}

func (a *admin) revisions(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	all, err := a.p.control.History().List(r.Context())
	if err != nil {
		return nil, err
	}
	o := a.p.control.Outcome()
	h := Revisions{Source: o.Source, Pinned: o.Pinned, Staged: o.Staged, Revisions: append([]revision.Revision{}, all...)}
	if o.Accepted != nil {
		h.Served = o.Accepted.Number
	}
	return h, nil
}

func (a *admin) revision(r *http.Request) (any, error) {
	q, err := query(r, "content")
	if err != nil {
		return nil, err
	}
	h := a.p.control.History()
	found, err := h.Find(r.Context(), r.PathValue("rev"))
	if err != nil {
		return nil, err
	}
	shown := RevisionFiles{Revision: found}
	if shown.Sizes, err = h.Names(r.Context(), found); err != nil {
		return nil, err
	}
	switch q.Get("content") {
	case "", "false":
	case "true":
		shown.Content, err = h.Files(r.Context(), found)
	default:
		err = problemf(http.StatusBadRequest, "content: want true or false")
	}
	return shown, err
}

// diffRevisions compares two revisions as this process would serve them.
func (a *admin) diffRevisions(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	if !a.comparing.TryLock() {
		return nil, problemf(http.StatusTooManyRequests, "another comparison is being made: ask again")
	}
	defer a.comparing.Unlock()
	var sides []diff.Policy
	for _, rev := range []string{r.PathValue("rev"), r.PathValue("other")} {
		one, err := a.sideOf(r.Context(), rev)
		if err != nil {
			return nil, err
		}
		sides = append(sides, one)
	}
	return diff.Between(sides[0], sides[1]), nil
}

// sideOf compiles a revision.
func (a *admin) sideOf(ctx context.Context, rev string) (diff.Policy, error) {
	h := a.p.control.History()
	found, err := h.Find(ctx, rev)
	if err != nil {
		return diff.Policy{}, err
	}
	files, err := h.Files(ctx, found)
	if err != nil {
		return diff.Policy{}, err
	}
	compiled, problems, err := a.p.control.Try(files)
	if err == nil && compiled == nil {
		err = problems.Err()
	}
	if err != nil {
		return diff.Policy{}, problemf(http.StatusUnprocessableEntity, "revision %d can't be compiled any more: %w", found.Number, err)
	}
	return side(compiled, files), nil
}

// change has one change made at a time, as each takes memory of the size of the policy, several times.
func (a *admin) change(w http.ResponseWriter, r *http.Request, apply func(*http.Request) (control.Accepted, error)) {
	ctx, cancel := context.WithTimeout(r.Context(), pushTime)
	defer cancel()
	select {
	case a.changing <- struct{}{}:
		defer func() { <-a.changing }()
	case <-ctx.Done():
		refuse(w, http.StatusTooManyRequests, "another change is being made: try again")
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(candidateTime))
	accepted, err := apply(r)
	if err != nil {
		code, refused := a.refusal(r.Context(), err)
		answer(w, code, refused)
		return
	}
	answer(w, http.StatusOK, accepted)
}

func (a *admin) push(r *http.Request) (control.Accepted, error) {
	var p Push
	err := readLarge(r, &p, `{"files": {NAME: BASE64}, "parent": REV, "by": TEXT, "message": TEXT, "force": BOOL}`)
	if err == nil {
		err = p.check(r)
	}
	if err != nil {
		return control.Accepted{}, err
	}
	return a.p.control.Push(r.Context(), p.Files, p.wanted())
}

func (a *admin) rollback(r *http.Request) (control.Accepted, error) {
	var c ChangeWanted
	err := readBody(r, &c, `{"parent": REV, "by": TEXT, "message": TEXT, "force": BOOL}`)
	if err == nil {
		err = c.check(r)
	}
	if err != nil {
		return control.Accepted{}, err
	}
	return a.p.control.Rollback(r.Context(), r.PathValue("rev"), c.wanted())
}

func (c ChangeWanted) check(r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	if c.Parent != control.NoParent && !revision.IsRef(c.Parent) {
		return problemf(http.StatusBadRequest, "parent: name the revision that this builds on, or none for the first one")
	}
	return nil
}

func (c ChangeWanted) wanted() control.Change {
	return control.Change{Parent: c.Parent, By: c.By, Message: c.Message, Force: c.Force}
}

// refusal is the answer to a change that is not accepted.
func (a *admin) refusal(ctx context.Context, err error) (int, ChangeRefused) {
	refused := ChangeRefused{Error: err.Error()}
	if bad, ok := errors.AsType[*control.Refused](err); ok {
		refused.Problems = bad.Problems
		return http.StatusUnprocessableEntity, refused
	}
	if shrink, ok := errors.AsType[*control.Shrink](err); ok {
		refused.Shrink = shrink
		return http.StatusUnprocessableEntity, refused
	}
	switch {
	case errors.Is(err, revision.ErrMoved):
		refused.Error += ": look at what has changed (legation diff), and push again on top of it"
		if head, err := a.p.control.History().Head(ctx); err == nil && head.Number > 0 {
			refused.Head = &head
		}
	case errors.Is(err, store.ErrUnavailable):
		refused.Error = "the store of revisions can't be written, and nothing was changed that is served: try again when it is back: " + refused.Error
	}
	return codeOf(err), refused
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/legation/legation/app"
	"github.com/legation/legation/control"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/revision"
)

// onItsWay is a policy that so many Envoys have first.
func onItsWay(canaries ...string) control.Outcome {
	s := control.Staged{Group: "edge", Revision: "2", From: "1", Hold: 30, Of: 12, Canaries: []control.Canary{}}
	for _, id := range canaries {
		s.Canaries = append(s.Canaries, control.Canary{Node: id})
	}
	return control.Outcome{Revision: "2", Staged: []control.Staged{s}}
}

// --wait ends when the policy is with all Envoys, or will not be.
func TestAwait(t *testing.T) {
	t.Parallel()
	away := errors.New("connection refused")
	for name, row := range map[string]struct {
		turns []control.Outcome // one for each half second, the last for ever
		err   error             // the answer in the place of the last
		took  time.Duration
		fails bool
		want  string // in the error
		told  string
	}{
		"not staged":     {[]control.Outcome{{Revision: "2"}}, nil, 0, false, "", ""},
		"held":           {[]control.Outcome{onItsWay("a"), onItsWay("a"), {Revision: "2"}}, nil, time.Second, false, "", ""},
		"another's":      {[]control.Outcome{{Revision: "2", Staged: []control.Staged{{Group: "other", Revision: "1"}}}}, nil, 0, false, "", ""},
		"replaced":       {[]control.Outcome{onItsWay("a"), {Revision: "3"}}, nil, time.Second / 2, true, "another revision is served by now", ""},
		"nobody":         {[]control.Outcome{onItsWay()}, nil, nobodyFor + askEvery, true, "no Envoy is connected that could have it first", ""},
		"away":           {[]control.Outcome{onItsWay("a")}, away, awayFor + askEvery, true, "connection refused", ""},
		"for ever":       {[]control.Outcome{onItsWay("a")}, nil, waitedMost, true, "what became of it is not known", ""},
		"somebody later": {[]control.Outcome{onItsWay(), onItsWay("a"), {Revision: "2"}}, nil, time.Second, false, "", ""},
		"went back": {[]control.Outcome{onItsWay("a"), {Revision: "2", Parked: []control.Parked{
			{Group: "edge", Revision: "2", To: "1", Canaries: true, Reasons: []control.Reason{{Node: "a", Origin: "a.yaml:1:2", Error: "left"}}},
		}}}, nil, time.Second / 2, true, "", "a.yaml:1:2: a left"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				asked, began := 0, time.Now()
				var out strings.Builder
				err := await(t.Context(), &out, control.Accepted{Revision: revision.Revision{Number: 7, Hash: "2"}}, func(context.Context) (control.Outcome, error) {
					asked++
					if row.err != nil && asked > len(row.turns) {
						return control.Outcome{}, row.err
					}
					return row.turns[min(asked, len(row.turns))-1], nil
				})
				if (err != nil) != row.fails || row.fails && !strings.Contains(err.Error(), row.want) || !strings.Contains(out.String(), row.told) {
					t.Errorf("got %v and %q, want %q and %q", err, out.String(), row.want, row.told)
				}
				if took := time.Since(began); took.Round(askEvery) != row.took {
					t.Errorf("it took %s, want %s", took, row.took)
				}
			})
		})
	}
}

// A push tells which Envoys get it first, and with --wait what became of it.
func TestPushToSomeFirst(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any
		switch r.Method + r.URL.Path {
		case "GET/revisions":
			answer = app.Revisions{Staged: onItsWay("a").Staged, Revisions: []revision.Revision{{Number: 1, Hash: "1"}}}
		case "POST/revisions":
			answer = control.Accepted{
				Revision: revision.Revision{Number: 2, Hash: "2", Files: 1, Changed: 1}, Served: true, Staged: onItsWay("a", "b").Staged, Problems: policy.Problems{},
			}
		default:
			answer = app.Status{Policy: control.Outcome{Revision: "2"}}
			asked.Add(1)
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(s.Close)
	dir := policyDir(t, "policy.yaml", "gateways: {}\n")
	status, out, errs := legation("push", dir, "--server", s.URL)
	if want := "revision 2 (2): 1 file changed, 1 in all\nstaged: to 2 of 12 Envoys of edge, which hold it for 30s before the others get it\n"; status != 0 || out != want || errs != "" {
		t.Errorf("got %d %q %q, want %q", status, out, errs, want)
	}
	if asked.Load() != 0 {
		t.Error("it waited")
	}
	if status, out, errs = legation("push", dir, "--wait", "--server", s.URL); status != 0 || !strings.HasSuffix(out, "others get it\nall Envoys get it\n") || asked.Load() != 1 {
		t.Errorf("--wait: got %d %q %q", status, out, errs)
	}
	if status, out, errs = legation("history", "--server", s.URL); status != 0 || !strings.Contains(out, "STAGED: revision 2 goes to 1 of 12 Envoys of edge first, others have 1; it goes on when that one has held it for 30s\n") {
		t.Errorf("history: got %d %q %q", status, out, errs)
	}
}

// A push says so where all Envoys get it by force, and where none does since it was refused before.
func TestPushOfWhatWasRefused(t *testing.T) {
	t.Parallel()
	parked := []control.Parked{{Group: "inner", Revision: "2", To: "1", Refused: 2, Of: 2, Reasons: []control.Reason{{Node: "a", Type: "listener", Resource: "http", Error: "no"}}}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any = control.Accepted{
			Revision: revision.Revision{Number: 2, Hash: "2"}, Unchanged: true, Served: true, Released: []string{"edge"}, Parked: parked, Problems: policy.Problems{},
		}
		switch r.Method + r.URL.Path {
		case "GET/revisions":
			answer = app.Revisions{Revisions: []revision.Revision{{Number: 2, Hash: "2"}}}
		case "GET/status":
			answer = app.Status{Policy: control.Outcome{Revision: "2", Parked: parked}}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(s.Close)
	dir := policyDir(t, "policy.yaml", "gateways: {}\n")
	for name, row := range map[string]struct {
		args   []string
		status int
	}{
		"push":     {[]string{"push", dir}, 0},
		"rollback": {[]string{"rollback", "2"}, 0},
		"--wait":   {[]string{"push", dir, "--wait"}, 1},
	} {
		status, out, errs := legation(append(row.args, "--server", s.URL)...)
		if status != row.status || !strings.Contains(out, "forced: all Envoys of edge get it\n") || strings.Count(errs, "ROLLED BACK: gateway inner is served revision 1") != 1 {
			t.Errorf("%s: got %d %q %q, want %d", name, status, out, errs, row.status)
		}
	}
}

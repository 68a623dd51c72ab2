package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// logLine is a line of a log with the documented operators, and the header by which the route tells its edit.
type logLine struct {
	Revision   string `json:"revision"`
	Connection string `json:"connection"`
	Edit       string `json:"edit"`
	Status     int    `json:"status"`
}

const lineFormat = `{revision: "%DYNAMIC_METADATA(legation:revision)%", connection: "%FILTER_STATE(legation.connection.revision:PLAIN)%", ` +
	`edit: "%RESP(x-edit)%", status: "%RESPONSE_CODE%"}`

// linesOf reads a log as far as it is written.
func linesOf(t *testing.T, log string) (all []logLine) {
	t.Helper()
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		text, err := r.ReadBytes('\n')
		if err == io.EOF { // the last line may not be whole yet
			return all
		}
		var line logLine
		if err == nil {
			err = json.Unmarshal(text, &line)
		}
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		all = append(all, line)
	}
}

// logged waits for a line.
func logged(t *testing.T, log string, want logLine) {
	t.Helper()
	eventually(t, fmt.Sprintf("a line with %+v", want), func() error {
		all := linesOf(t, log)
		if !slices.Contains(all, want) {
			return fmt.Errorf("the last of %d: %+v", len(all), all[max(0, len(all)-3):])
		}
		return nil
	})
}

// another waits for a revision after the one before, as lines name it: an Envoy may have it a little sooner than status.
func (p *plane) another(t *testing.T, before string) (revision string) {
	t.Helper()
	eventually(t, "another revision", func() error {
		if revision = p.status(t).Policy.Revision[:12]; revision == before {
			return fmt.Errorf("still %s", before)
		}
		return nil
	})
	return revision
}

// Each line names the revision that answered: of a route that is edited under load that of the edit or, for a moment, the
// one before, and never one that isn't served yet. Nothing fails by it, and no listener changes.
func TestAccessLogNamesTheRevision(t *testing.T) {
	for _, layout := range []string{"shared", "perHost"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			port := ports(t, 2)
			app, log := upstream(t, "app"), filepath.Join(t.TempDir(), "access.log")
			policy := strings.Replace(edge(port[0], app), "auth:\n", "    accessLog: {path: "+log+", format: "+lineFormat+"}\nauth:\n", 1)
			policy = strings.Replace(policy, "address: 127.0.0.1}", "address: 127.0.0.1, routeTables: "+layout+"}\n"+
				fmt.Sprintf("      db: {port: %d, address: 127.0.0.1, protocol: TCP}", port[1]), 1)
			policy = strings.Replace(policy, "routes:\n  open:\n", "routes:\n  db: {listeners: [db], backends: {app: 1}}\n"+
				"  tight: {hostnames: [localhost], listeners: [http], match: {path: /tight}, rateLimit: {rate: 1/day}, backends: {app: 1}}\n"+
				"  open:\n    headers: {response: {set: {x-edit: \"EDIT\"}}}\n", 1)
			policy = strings.ReplaceAll(policy, "hostnames: [localhost]\n", "hostnames: [localhost]\n    listeners: [http]\n")
			at := func(edit string) string { return strings.Replace(policy, "EDIT", edit, 1) }

			p := newPlane(t, policyDir(t, at("0")))
			p.serve(t)
			e := p.envoy(t, "edge")
			base := fmt.Sprintf("http://localhost:%d", port[0])
			answers(t, base+"/")
			revisions := []string{p.status(t).Policy.Revision[:12]}
			stop := load(t, base+"/", http.StatusOK)
			const edits = 12
			for i := 1; i <= edits; i++ {
				edit := fmt.Sprint(i)
				write(t, filepath.Join(p.dir, "policy.yaml"), at(edit))
				eventually(t, "edit "+edit, func() error {
					a, err := request("GET", base+"/")
					if got := a.header.Get("X-Edit"); err == nil && got != edit {
						err = fmt.Errorf("still at %s:\n%s", got, p.out)
					}
					return err
				})
				revisions = append(revisions, p.another(t, revisions[i-1]))
				logged(t, log, logLine{Revision: revisions[i], Edit: edit, Status: 200})
			}
			if good, bad := stop(); len(bad) > 0 || good == 0 {
				t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
			}
			checkLines(t, linesOf(t, log), revisions)

			// A revision that changes nothing else, and what is answered by others than a backend.
			write(t, filepath.Join(p.dir, "policy.yaml"), "# the same\n"+at(fmt.Sprint(edits)))
			now := p.another(t, revisions[edits])
			eventually(t, "a line with "+now, func() error {
				mustRequest(t, "GET", base+"/")
				if !slices.Contains(linesOf(t, log), logLine{Revision: now, Edit: fmt.Sprint(edits), Status: 200}) {
					return fmt.Errorf("none yet")
				}
				return nil
			})
			mustRequest(t, "GET", base+"/private")
			mustRequest(t, "GET", base+"/tight")
			mustRequest(t, "GET", base+"/tight")
			mustRequest(t, "GET", strings.Replace(base, "localhost", "127.0.0.1", 1)+"/")
			for _, status := range []int{401, 429, 404} {
				logged(t, log, logLine{Revision: now, Status: status})
			}
			conn, err := net.Dial("tcp", local(port[1]))
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			logged(t, log, logLine{Connection: now})
			if got := e.stat(t, "listener_manager.listener_modified"); got != "0" {
				t.Errorf("listener_modified: got %s, want 0", got)
			}
		})
	}
}

// checkLines holds the lines of an edited route against the revisions of its edits.
func checkLines(t *testing.T, lines []logLine, revisions []string) {
	t.Helper()
	late := 0
	for n, line := range lines {
		var edit int
		if _, err := fmt.Sscan(line.Edit, &edit); err != nil {
			t.Fatalf("line %d: %+v: %v", n, line, err)
		}
		switch line.Revision {
		case revisions[edit]:
		case revisions[max(edit-1, 0)]:
			late++
		default:
			t.Fatalf("line %d has edit %d and revision %q, want %q or the one before of %q", n, edit, line.Revision, revisions[edit], revisions)
		}
	}
	t.Logf("%d of %d lines name the revision before", late, len(lines))
}

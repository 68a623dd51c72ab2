package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/legation/legation/envoy/certtest"
)

// badTeams is each kind of bad policy as a team may write it, and where it has to be told: line, column and words of each
// problem, in their order, all at once.
var badTeams = []struct {
	name, text string
	want       []string
}{
	{"syntax", "services:\n  team: {endpoints: [\nroutes:\n", []string{`2:21: what begins with this [ is never closed`}},
	{"a tab", "services:\n\tteam: {}\n", []string{"2:1: a tab"}},
	{"no YAML", "services: \x00", []string{"1:11: a NUL byte"}},
	{"unknown section", teamServices + "rutes:\n  team: {}\n", []string{`3:1: rutes: unknown section "rutes"`}},
	{"unknown keys", teamServices + teamRoute("timeout: 5s, retries: 3"), []string{`4:73: routes.team.timeout: unknown key`, `4:86: routes.team.retries: unknown key`}},
	{"wrong types", teamServices + teamRoute("timeouts: {request: five}, retry: {attempts: many}"), []string{`4:93: routes.team.timeouts.request: want a time span`, `4:118: routes.team.retry.attempts: want a whole number`}},
	{"unit", teamServices + teamRoute("timeouts: {request: 5}"), []string{`4:93: routes.team.timeouts.request: a time span needs its unit`}},
	{"reference", teamServices + "routes:\n  team: {gateways: [edge], hostnames: [team.test], backends: {taem: 1}}\n", []string{`4:63: routes.team.backends.taem: there is no service`}},
	{"references", teamServices + "routes:\n  team: {gateways: [egde], hostnames: [team.test], auth: [idp], backends: {taem: 1}}\n", []string{`4:21: routes.team.gateways[0]: there is no gateway`, `4:59: routes.team.auth[0]: there is no auth entry`, `4:76: routes.team.backends.taem: there is no service`}},
	{"regex", teamServices + teamRoute("match: {path: {regex: '/a(?=b)'}}"), []string{`4:95: routes.team.match.path.regex: `}},
	{"cel", teamServices + "auth: {keys: {apiKey: {header: x-key}}}\n" + teamRoute("auth: [keys], authorize: {rules: ['request.method = 1']}"), []string{`5:123: routes.team.authorize.rules[0]: `}},
	{"duplicate key", teamServices + "routes:\n  team: {gateways: [edge], hostnames: [team.test], hostnames: [b.test], backends: {team: 1}}\n", []string{`4:52: routes.team.hostnames: the key "hostnames" stands here twice`}},
	{"duplicate name", "services: {other: {endpoints: [\"127.0.0.1:1\"]}}\n", []string{`1:12: services.other: the service "other" is defined twice`}},
	{"conflict", teamServices + "routes:\n  same: {gateways: [edge], hostnames: [other.test], backends: {team: 1}}\n", []string{`4:3: routes.same: matches the same requests as the route "other" at other.yaml:2:10`}},
	{"weights", teamServices + "routes:\n  team: {gateways: [edge], hostnames: [team.test], backends: {team: 0}}\n", []string{`4:52: routes.team.backends: the weights add up to 0`}},
	{"limit without auth", teamServices + teamRoute("rateLimit: {rate: 1/second, by: consumer}"), []string{`4:105: routes.team.rateLimit.by: counts by consumer`}},
	{"cors", teamServices + teamRoute("cors: {allowOrigins: ['*'], allowCredentials: true}"), []string{`4:95: routes.team.cors.allowOrigins[0]: `}},
	{"port clash", teamServices + teamRoute("") + "gateways: {second: {listeners: {a: {port: 1}, b: {port: 1}}}}\n", []string{`5:57: gateways.second.listeners.b.port: port 1 is already taken`}},
	{"certificate pair", "services:\n  team: {endpoints: [\"TEAM\"], tls: {hostname: a.test, certificate: {secret: tls/swapped}}}\n" + teamRoute(""), []string{`2:88: services.team.tls.certificate.secret: the key tls/swapped.key does not belong`}},
	{"inline secret", teamServices + teamRoute("headers: {request: {set: {authorization: Bearer abcdefgh}}}"), []string{`4:114: routes.team.headers.request.set.authorization: a value of authorization is a secret`}},
	{"alias bomb", "a: &a [x, x]\nb: [*a, *a]\n", []string{`1:4: anchors`, `2:1: b: unknown section "b"`, `2:5: aliases`, `2:9: aliases`}},
	{"patch", teamServices + teamRoute("envoy: {route: {route: {cluster: other}}}"), []string{`4:97: routes.team.envoy.route.route.cluster: no patch may write cluster`}},
}

const teamServices = "services:\n  team: {endpoints: [\"TEAM\"]}\n"

// teamRoute is the team's route with a further setting.
func teamRoute(more string) string {
	return "routes:\n  team: {gateways: [edge], hostnames: [team.test], backends: {team: 1}, " + more + "}\n"
}

// Under load each kind of bad policy is dropped into the directory, beside a good change of another file: it is told in
// full, no Envoy hears of it, nothing that is served changes but what the good file says, and no request fails.
func TestBadPoliciesUnderLoad(t *testing.T) {
	t.Parallel()
	port := ports(t, 1)[0]
	app, team := upstream(t, "app"), upstream(t, "team")
	good := func(edit int) string {
		return fmt.Sprintf(`services: {app: {endpoints: [%q]}}
routes: {app: {gateways: [edge], hostnames: [app.test], backends: {app: 1}, headers: {response: {set: {x-edit: "%d"}}}}}
`, app, edit)
	}
	teams := func(text string) string { return strings.ReplaceAll(text, "TEAM", team) }
	p := newPlane(t, policyDir(t, fmt.Sprintf("gateways: {edge: {listeners: {http: {port: %d, address: 127.0.0.1}}}}\n", port)))
	file := func(name string) string { return filepath.Join(p.dir, name) }
	write(t, file("app.yaml"), good(-1))
	write(t, file("other.yaml"), fmt.Sprintf("services: {other: {endpoints: [%q]}}\nroutes: {other: {gateways: [edge], hostnames: [other.test], backends: {other: 1}}}\n", app))
	write(t, file("team.yaml"), teams(teamServices+teamRoute("")))
	p.serve(t, "--secrets-dir", swapped(t))
	e := p.envoy(t, "edge")
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	eventually(t, "the good policy", func() error { return showsEdit(url, -1) })

	stops := []func() (int, []string){
		load(t, url, http.StatusOK, "Host", "team.test"), load(t, url, http.StatusOK, "Host", "app.test"),
		loadBy(t, priorHTTP2(), url, http.StatusOK, "Host", "team.test"),
	}
	revision := p.status(t).Policy.Revision
	for i, row := range badTeams {
		write(t, file("team.yaml"), teams(row.text))
		write(t, file("app.yaml"), good(i))
		eventually(t, row.name+": the good file", func() error { return showsEdit(url, i) })
		eventually(t, row.name+": the revision", func() error {
			if now := p.status(t).Policy.Revision; now == revision {
				return fmt.Errorf("still at %s", now)
			}
			return nil
		})
		policy := p.status(t).Policy
		revision = policy.Revision
		var told []string
		for _, problem := range policy.Problems {
			if !problem.Warning {
				told = append(told, strings.TrimPrefix(problem.Error(), "team.yaml:"))
			}
		}
		if !slices.EqualFunc(told, row.want, strings.HasPrefix) {
			t.Errorf("%s: told %q, want %q", row.name, told, row.want)
		}
	}
	write(t, file("team.yaml"), teams(teamServices+teamRoute("headers: {response: {set: {x-edit: mended}}}")))
	eventually(t, "the mended file", func() error {
		a, err := request("GET", url, "Host", "team.test")
		if err == nil && a.header.Get("X-Edit") != "mended" {
			err = fmt.Errorf("%v", a.header)
		}
		return err
	})
	for _, stop := range stops {
		if good, bad := stop(); len(bad) > 0 || good == 0 {
			t.Errorf("%d of %d requests failed, the first with %s", len(bad), good+len(bad), append(bad, "")[0])
		}
	}
	e.zero(t,
		"listener_manager.listener_modified", "cluster_manager.cluster_modified", "listener_manager.listener_removed",
		"cluster_manager.cluster_removed", "listener_manager.lds.update_rejected", "cluster_manager.cds.update_rejected",
	)
}

// edited tells whether the good file's change is live.
func showsEdit(url string, edit int) error {
	a, err := request("GET", url, "Host", "app.test")
	if want := strconv.Itoa(edit); err == nil && a.header.Get("X-Edit") != want {
		err = fmt.Errorf("at %q, want %s", a.header.Get("X-Edit"), want)
	}
	return err
}

// swapped is a directory of secrets with a certificate beside the key of another.
func swapped(t *testing.T) string {
	t.Helper()
	ca := certtest.NewAuthority(t, "ca")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "tls", "swapped.crt"), string(ca.Issue(t, "a.test").Chain))
	key := filepath.Join(dir, "tls", "swapped.key")
	write(t, key, string(ca.Issue(t, "b.test").Key))
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// priorHTTP2 asks over one connection of HTTP/2 in plain text.
func priorHTTP2() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Timeout: client.Timeout, Transport: &http.Transport{Protocols: protocols}}
}

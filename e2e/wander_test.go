package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	wanderSteps = flag.Int("wander-steps", 40, "how many changes TestWanderUnderLoad makes")
	wanderSeed  = flag.Uint64("wander-seed", 0, "the seed of TestWanderUnderLoad; 0 takes another each time")
)

// A policy wanders at random under load: services and routes are renamed, moved, split, joined and dropped, settings come
// and go, files are cut otherwise, bad files appear, and the control plane is killed and started again, mostly before the
// Envoy has followed the change before. Both layouts of route tables are asked all the time, and every host of the policy
// always has an answer: so no request may fail, on whatever way the Envoy comes from one policy to the next.
func TestWanderUnderLoad(t *testing.T) {
	t.Parallel()
	seed := *wanderSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-wander-seed %d", seed)
	w := newWander(t, rand.New(rand.NewPCG(seed, 0)))
	w.swap()
	w.plane.serve(t, "--allow-shrink") // several renamings at once take away most of a small policy
	e := w.plane.envoy(t, "edge")
	var stops []func() (int, []string)
	for _, port := range w.ports {
		for _, host := range wanderHosts {
			url := fmt.Sprintf("http://127.0.0.1:%d/deep/down", port)
			eventually(t, host, func() error {
				a, err := request("GET", url, "Host", host)
				if err == nil && a.status != http.StatusOK {
					err = fmt.Errorf("status %d", a.status)
				}
				return err
			})
			stops = append(stops, loadBy(t, client, url, http.StatusOK, "Host", host))
		}
	}
	for range *wanderSteps {
		w.step()
	}
	w.arrive()
	good := 0
	for _, stop := range stops {
		n, bad := stop()
		if good += n; len(bad) > 0 || n == 0 {
			t.Errorf("%d of %d requests failed, the first with %s", len(bad), n+len(bad), append(bad, "")[0])
		}
	}
	t.Logf("%d requests, %d changes, %d restarts", good, w.changes, w.restarts)
	e.zero(t, "listener_manager.listener_modified", "listener_manager.listener_removed")
}

// The hosts that the policy answers for at every time.
var wanderHosts = []string{"a.test", "b.test", "c.test"}

// wander is a policy on its way.
type wander struct {
	t        *testing.T
	random   *rand.Rand
	plane    *plane
	folder   string // that holds the policy's versions, and the link to the current one
	ports    []int  // of the listener with one route table, and of that with a table per host
	backends []string

	services map[string][]string // endpoints by name
	routes   []wanderRoute
	versions int

	changes, restarts int
}

type wanderRoute struct {
	name, host, path string
	services         []string
	setting          string
}

func newWander(t *testing.T, random *rand.Rand) *wander {
	w := &wander{t: t, random: random, folder: t.TempDir(), ports: ports(t, 2), services: map[string][]string{}}
	for _, name := range []string{"first", "second", "third"} {
		w.backends = append(w.backends, upstream(t, name))
	}
	for i, host := range wanderHosts {
		w.services[fmt.Sprintf("start-%d", i)] = w.backends[:1+i]
		w.routes = append(w.routes, wanderRoute{name: "at-" + host, host: host, path: "/", services: []string{fmt.Sprintf("start-%d", i)}})
	}
	w.plane = newPlane(t, filepath.Join(w.folder, "current"))
	return w
}

func (w *wander) name(kind string) string { return fmt.Sprintf("%s-%d", kind, w.random.IntN(30)) }

func (w *wander) pick(list []string) string { return list[w.random.IntN(len(list))] }

// step changes something, and waits for the Envoy in one of four cases.
func (w *wander) step() {
	w.changes++
	switch w.random.IntN(10) {
	case 0, 1:
		w.renameService()
	case 2:
		w.services[w.pick(w.names())] = w.endpoints()
	case 3:
		w.renameRoute()
	case 4, 5:
		w.moveRoute()
	case 6:
		w.toggleDeeper()
	case 7:
		w.routes[w.random.IntN(len(w.routes))].setting = w.pick([]string{
			"", "cors: {allowOrigins: [\"https://x.test\"]}", "retry: {attempts: 1, retryOn: [connect-failure]}",
			"timeouts: {request: 9s}", "rateLimit: {rate: 1000000/second}", "headers: {response: {set: {x-wander: here}}}",
		})
	case 8:
		w.stray()
	case 9:
		w.restart()
	}
	w.swap()
	if w.random.IntN(4) == 0 {
		w.arrive()
	}
}

// endpoints is one to three of the upstreams.
func (w *wander) endpoints() []string {
	all := slices.Clone(w.backends)
	w.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+w.random.IntN(len(all))]
}

func (w *wander) names() []string {
	var names []string
	for name := range w.services {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (w *wander) renameService() {
	from, to := w.pick(w.names()), w.name("service")
	if w.services[to] != nil {
		return
	}
	w.services[to] = w.services[from]
	delete(w.services, from)
	for i, r := range w.routes {
		if j := slices.Index(r.services, from); j >= 0 {
			w.routes[i].services = slices.Clone(r.services)
			w.routes[i].services[j] = to
		}
	}
}

func (w *wander) renameRoute() {
	name := w.name("route")
	if !slices.ContainsFunc(w.routes, func(r wanderRoute) bool { return r.name == name }) {
		w.routes[w.random.IntN(len(w.routes))].name = name
	}
}

// moveRoute leads a route to other services: a new one, or one or two that are there. Those that nothing leads to any
// more may stay, or go.
func (w *wander) moveRoute() {
	to := []string{w.pick(w.names())}
	if w.random.IntN(2) == 0 {
		to = []string{w.name("service")}
		w.services[to[0]] = w.endpoints()
	} else if other := w.pick(w.names()); other != to[0] && w.random.IntN(2) == 0 {
		to = append(to, other)
	}
	w.routes[w.random.IntN(len(w.routes))].services = to
	if w.random.IntN(2) == 0 {
		return
	}
	for _, name := range w.names() {
		if !slices.ContainsFunc(w.routes, func(r wanderRoute) bool { return slices.Contains(r.services, name) }) {
			delete(w.services, name)
		}
	}
}

// toggleDeeper adds or removes the route that takes the requests of a host from the one for all its paths.
func (w *wander) toggleDeeper() {
	host := w.pick(wanderHosts)
	deeper := func(r wanderRoute) bool { return r.host == host && r.path == "/deep" }
	if slices.ContainsFunc(w.routes, deeper) {
		w.routes = slices.DeleteFunc(w.routes, deeper)
		return
	}
	name := "deeper-" + host
	if !slices.ContainsFunc(w.routes, func(r wanderRoute) bool { return r.name == name }) {
		w.routes = append(w.routes, wanderRoute{name: name, host: host, path: "/deep", services: []string{w.pick(w.names())}})
	}
}

// stray has a bad file beside the others for a moment.
func (w *wander) stray() {
	w.write(append(w.files(), "routes: {lost: {hostnames: [a.test], backends: {nobody: 1}}}\ngateways: [\n")...)
}

func (w *wander) restart() {
	w.restarts++
	w.plane.kill()
	w.plane.child = start(w.t, binary, w.plane.args("serve", "--allow-shrink")...)
}

// swap puts the policy in place.
func (w *wander) swap() { w.write(w.files()...) }

// files is the policy, cut into one to three files.
func (w *wander) files() (texts []string) {
	files := make([]strings.Builder, 1+w.random.IntN(3))
	fmt.Fprintf(&files[0], "gateways: {edge: {listeners: {one: {port: %d, address: 127.0.0.1}, per: {port: %d, address: 127.0.0.1, routeTables: perHost}}}}\n",
		w.ports[0], w.ports[1])
	sections := map[string][]string{}
	for _, name := range w.names() {
		sections["services"] = append(sections["services"], fmt.Sprintf("%s: {endpoints: [%s]}", name, strings.Join(w.services[name], ", ")))
	}
	for _, r := range w.routes {
		text := fmt.Sprintf("%s: {hostnames: [%s], match: {path: %s}, backends: {%s: 1}", r.name, r.host, r.path, strings.Join(r.services, ": 1, "))
		if r.setting != "" {
			text += ", " + r.setting
		}
		sections["routes"] = append(sections["routes"], text+"}")
	}
	for _, section := range []string{"services", "routes"} {
		cut := make([][]string, len(files))
		for _, line := range sections[section] {
			i := w.random.IntN(len(files))
			cut[i] = append(cut[i], line)
		}
		for i, lines := range cut {
			fmt.Fprintf(&files[i], "%s: {%s}\n", section, strings.Join(lines, ", "))
		}
	}
	for i := range files {
		texts = append(texts, files[i].String())
	}
	return texts
}

// write makes a folder of these files, and leads the link there.
func (w *wander) write(files ...string) {
	w.t.Helper()
	w.versions++
	version := filepath.Join(w.folder, fmt.Sprintf("version-%d", w.versions))
	for i, text := range files {
		write(w.t, filepath.Join(version, fmt.Sprintf("policy-%d.yaml", i)), text)
	}
	if err := os.Symlink(version, w.plane.dir+".next"); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(w.plane.dir+".next", w.plane.dir); err != nil {
		w.t.Fatal(err)
	}
}

// arrive waits until the Envoy runs what the directory holds, which a marker route tells on both listeners.
func (w *wander) arrive() {
	w.t.Helper()
	marker := fmt.Sprintf("/marker-%d", w.versions)
	w.routes = append(w.routes, wanderRoute{name: "marker", host: "marker.test", path: marker, services: w.names()[:1]})
	w.swap()
	w.routes = w.routes[:len(w.routes)-1]
	for _, port := range w.ports {
		eventually(w.t, marker, func() error {
			a, err := request("GET", fmt.Sprintf("http://127.0.0.1:%d%s", port, marker), "Host", "marker.test")
			if err == nil && a.status != http.StatusOK {
				err = fmt.Errorf("status %d:\n%s", a.status, w.plane.out)
			}
			return err
		})
	}
}

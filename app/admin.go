package app

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"github.com/legation/legation/auth"
	"github.com/legation/legation/control"
	"github.com/legation/legation/envoy"
	"github.com/legation/legation/store"
	"github.com/legation/legation/xds"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
)

// Status is what GET /status answers and `legation status` shows.
type Status struct {
	Version string           `json:"version"`
	Started time.Time        `json:"started"`
	Roles   []Role           `json:"roles"`
	Policy  control.Outcome  `json:"policy"`
	Nodes   []xds.NodeStatus `json:"nodes"`          // connected
	Left    []xds.NodeStatus `json:"left,omitempty"` // Envoys that have left within the hour and are not back
	// Unlisted counts the Envoys whose resources there was no room for: ask for one by its name.
	Unlisted int               `json:"unlisted,omitempty"`
	Loads    []xds.ServiceLoad `json:"loads,omitempty"` // of each service that Envoys send requests to
	Store    *store.Health     `json:"store,omitempty"`
	Shared   *store.Health     `json:"shared,omitempty"` // of what processes share beside counts
	Keys     []auth.JWKSHealth `json:"keys,omitempty"`   // of each JWKS URL
}

// readiness is what GET /readyz answers: 200 once a whole policy is served, with what is degraded by name.
type readiness struct {
	Ready    bool     `json:"ready"`
	Waiting  string   `json:"waiting,omitempty"`
	Degraded []string `json:"degraded"`
}

// admin is the admin HTTP API.
type admin struct {
	p       *process
	token   [sha256.Size]byte // of the bearer token
	guarded bool              // a token is asked for
	local   bool              // only loopback is served, so that any other Host is a rebound name

	tools     *grpc.Server  // what gRPC's tools ask for
	comparing sync.Mutex    // one candidate at a time is held against what is served
	changing  chan struct{} // has a token while a change is made
}

func newAdmin(p *process) (*admin, error) {
	local, err := loopback(p.o.AdminAddress)
	if err != nil {
		return nil, err
	}
	a := &admin{p: p, local: local, changing: make(chan struct{}, 1), tools: grpc.NewServer(grpc.MaxRecvMsgSize(maxQuestion))}
	if p.xds != nil {
		xds.ClientStatus{Server: p.xds, Show: envoy.Redact}.Register(a.tools)
	}
	if p.o.AdminTokenFile == "" {
		return a, nil
	}
	text, err := os.ReadFile(p.o.AdminTokenFile)
	if err != nil {
		return nil, usagef("--admin-token-file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < 16 {
		return nil, usagef("--admin-token-file: %s holds %d characters; a token has at least 16", p.o.AdminTokenFile, len(token))
	}
	a.token, a.guarded = sha256.Sum256([]byte(token)), true
	return a, nil
}

// handler routes the API. Health needs no token, so that probes work; it tells nothing that a stranger could use.
func (a *admin) handler(metrics prometheus.Gatherer) http.Handler {
	open := http.NewServeMux()
	open.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	open.HandleFunc("GET /readyz", a.readyz)
	for _, path := range []string{"/healthz", "/readyz"} {
		open.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "this can only be read")
		})
	}
	closed := http.NewServeMux()
	closed.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	closed.HandleFunc("GET /status", a.status)
	closed.Handle("POST /"+statusv3.ClientStatusDiscoveryService_ServiceDesc.ServiceName+"/{method}", http.HandlerFunc(a.tool))
	closed.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "legation admin: /healthz /readyz /status /metrics /limits /limits/top /limits/report /usage /usage/CONSUMER /keys /keys/ID /revocations /revisions /revisions/REV /policy/diff")
	})
	closed.HandleFunc("/policy/diff", a.diff)
	a.revisionRoutes(closed)
	a.limitRoutes(closed)
	a.keyRoutes(closed)
	always := func() string { return "" }
	a.serve(closed, "/revocations", map[string]resolver{"GET": a.revocations, "POST": a.revoke}, always)
	a.serve(closed, "/revocations/{name...}", map[string]resolver{"DELETE": a.unrevoke}, always) // identities have slashes
	open.Handle("/", a.authorized(closed))
	return a.hygiene(open)
}

// hygiene refuses names that a browser was tricked into taking for ours (DNS rebinding) and requests that another
// site's page sends.
func (a *admin) hygiene(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		ip := net.ParseIP(strings.Trim(host, "[]"))
		if a.local && !strings.EqualFold(host, "localhost") && (ip == nil || !ip.IsLoopback()) {
			refuse(w, http.StatusForbidden, "the admin port answers on loopback only: use http://127.0.0.1 or http://localhost")
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host && origin != "https://"+r.Host {
			refuse(w, http.StatusForbidden, "this request comes from another site")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *admin) authorized(next http.Handler) http.Handler {
	if !a.guarded {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		sum := sha256.Sum256([]byte(token))
		if !strings.EqualFold(scheme, "bearer") || subtle.ConstantTimeCompare(sum[:], a.token[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="legation admin"`)
			refuse(w, http.StatusUnauthorized, "give the admin token as a bearer token")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// maxQuestion is the most bytes of a tool's request; maxResources is how many resources of Envoys /status lists.
const (
	maxQuestion  = 64 << 10
	maxResources = 20_000
)

// status answers GET /status. With ?resources it lists the resources of Envoys too, and with ?node=ID it is about that one.
func (a *admin) status(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	d := xds.Detail{Node: q.Get("node")}
	if q.Has("resources") {
		d.Resources = maxResources
	}
	answer(w, http.StatusOK, a.p.status(d))
}

// tool answers gRPC, which takes HTTP/2.
func (a *admin) tool(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 2 || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		refuse(w, http.StatusUnsupportedMediaType, "this is asked by gRPC")
		return
	}
	a.tools.ServeHTTP(w, r)
}

func (a *admin) readyz(w http.ResponseWriter, _ *http.Request) {
	r := a.p.readiness()
	code := http.StatusOK
	if !r.Ready {
		code = http.StatusServiceUnavailable
	}
	answer(w, code, r)
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	_ = out.Encode(v)
}

func refuse(w http.ResponseWriter, code int, message string) {
	answer(w, code, map[string]string{"error": message})
}

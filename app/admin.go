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

	"github.com/legation/legation/auth"
	"github.com/legation/legation/control"
	"github.com/legation/legation/store"
	"github.com/legation/legation/xds"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Status is what GET /status answers and `legation status` shows.
type Status struct {
	Version string            `json:"version"`
	Started time.Time         `json:"started"`
	Roles   []Role            `json:"roles"`
	Policy  control.Outcome   `json:"policy"`
	Nodes   []xds.NodeStatus  `json:"nodes"`
	Store   *store.Health     `json:"store,omitempty"`
	Shared  *store.Health     `json:"shared,omitempty"` // of what processes share beside counts
	Keys    []auth.JWKSHealth `json:"keys,omitempty"`   // of each JWKS URL
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

	comparing sync.Mutex    // one candidate at a time is held against what is served
	changing  chan struct{} // has a token while a change is made
}

func newAdmin(p *process) (*admin, error) {
	local, err := loopback(p.o.AdminAddress)
	if err != nil {
		return nil, err
	}
	a := &admin{p: p, local: local, changing: make(chan struct{}, 1)}
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
	closed.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, a.p.status()) })
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

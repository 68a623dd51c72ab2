package app

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/control"
	"github.com/legation/legation/policy"
	"github.com/legation/legation/ratelimit"
	"github.com/legation/legation/revision"
	"github.com/legation/legation/store"
)

// Limits is what GET /limits answers: the names of all limits that this process counts.
type Limits struct {
	Limits []string `json:"limits"`
}

// Top is what GET /limits/top answers: the busiest keys of this process.
type Top struct {
	Busiest []ratelimit.Busy `json:"busiest"`
}

// Add adds what another process answered.
func (t *Top) Add(o Top) { t.Busiest = ratelimit.AddBusy(t.Busiest, o.Busiest) }

// Report is what GET /limits/report answers: who was over which limit of this process.
type Report struct {
	Limits []ratelimit.Report `json:"limits"`
}

// Add adds what another process answered.
func (r *Report) Add(o Report) { r.Limits = ratelimit.AddReports(r.Limits, o.Limits) }

// Consumers is what GET /usage answers: the consumers and the plans that the policy names.
type Consumers struct {
	Consumers []Consumer `json:"consumers"`
	Plans     []string   `json:"plans"`
}

// Consumer is one of them.
type Consumer struct {
	Name string `json:"name"`
	Plan string `json:"plan,omitempty"`
}

// ConsumerUsage is what GET and POST /usage/CONSUMER answer.
type ConsumerUsage struct {
	Consumer string            `json:"consumer"`           // the consumer, where one of its identities was asked for
	Identity string            `json:"identity,omitempty"` // that identity
	Plan     string            `json:"plan,omitempty"`
	Limits   []ratelimit.Usage `json:"limits"`
}

// Adjustment is what POST /usage/CONSUMER takes: hits above 0 are counted, those below are given back.
type Adjustment struct {
	Limit string `json:"limit"`
	Hits  int64  `json:"hits"`
}

// Bounds of what is asked.
const (
	defaultTop  = 20
	maxTop      = 256 // that many are known
	maxConsumer = 4 << 10
	maxBody     = 8 << 10
	bodyTime    = 5 * time.Second
)

// problem is an answer that tells what is wrong.
type problem struct {
	code int
	error
}

func problemf(code int, format string, args ...any) error {
	return problem{code, fmt.Errorf(format, args...)}
}

// limitRoutes are the paths about limits, and about what consumers have used of them.
func (a *admin) limitRoutes(mux *http.ServeMux) {
	a.resource(mux, "/limits", map[string]resolver{"GET": a.limits})
	a.resource(mux, "/limits/top", map[string]resolver{"GET": a.top})
	a.resource(mux, "/limits/report", map[string]resolver{"GET": a.report})
	a.resource(mux, "/usage", map[string]resolver{"GET": a.consumers})
	a.resource(mux, "/usage/{consumer...}", map[string]resolver{"GET": a.usage, "POST": a.adjust}) // identities have slashes
}

// resolver answers a request with what it gives, as JSON.
type resolver func(*http.Request) (any, error)

// resource serves a path about limits with the resolver of each method, and refuses the other methods.
func (a *admin) resource(mux *http.ServeMux, path string, calls map[string]resolver) {
	a.serve(mux, path, calls, func() string {
		if a.p.limits == nil {
			return "this process counts nothing: it has neither the role ratelimit nor the role auth"
		}
		return ""
	})
}

// serve serves a path with the resolver of each method, and refuses the other methods. What is missing, unless it is
// empty, says why this process has nothing to serve there.
func (a *admin) serve(mux *http.ServeMux, path string, calls map[string]resolver, missing func() string) {
	methods := slices.Sorted(maps.Keys(calls))
	if calls["GET"] != nil {
		methods = append([]string{"GET", "HEAD"}, slices.DeleteFunc(methods, func(m string) bool { return m == "GET" })...)
	}
	allow := strings.Join(methods, ", ")
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		c := calls[method]
		if c == nil {
			w.Header().Set("Allow", allow)
			refuse(w, http.StatusMethodNotAllowed, "the methods here are "+allow)
			return
		}
		if why := missing(); why != "" {
			refuse(w, http.StatusNotFound, why)
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)) // for what is left to read: a body
		v, err := c(r)
		if err != nil {
			refuse(w, codeOf(err), err.Error())
			return
		}
		answer(w, http.StatusOK, v)
	})
}

func codeOf(err error) int {
	var p problem
	switch {
	case errors.As(err, &p):
		return p.code
	case errors.Is(err, ratelimit.ErrNoSuch), errors.Is(err, auth.ErrNotRevoked), errors.Is(err, auth.ErrNoBoard), errors.Is(err, auth.ErrNoKey),
		errors.Is(err, auth.ErrNoKeys), errors.Is(err, revision.ErrNone):
		return http.StatusNotFound
	case errors.Is(err, revision.ErrMoved), errors.Is(err, control.ErrDirectory):
		return http.StatusConflict
	case errors.Is(err, ratelimit.ErrExempt), errors.Is(err, auth.ErrOrder), errors.Is(err, auth.ErrRevocation), errors.Is(err, store.ErrInvalid),
		errors.Is(err, store.ErrEntry), errors.Is(err, revision.ErrInvalid):
		return http.StatusBadRequest
	case errors.Is(err, store.ErrUnavailable):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func (a *admin) limits(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	return Limits{append([]string{}, a.p.limits.Limits()...)}, nil
}

func (a *admin) top(r *http.Request) (any, error) {
	q, err := query(r, "n")
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(cmp.Or(q.Get("n"), strconv.Itoa(defaultTop)))
	if err != nil || n < 1 || n > maxTop {
		return nil, problemf(http.StatusBadRequest, "n: want a number from 1 to %d, got %.64q", maxTop, q.Get("n"))
	}
	return Top{append([]ratelimit.Busy{}, a.p.limits.Top(n)...)}, nil
}

func (a *admin) report(r *http.Request) (any, error) {
	q, err := query(r, "limit")
	if err != nil {
		return nil, err
	}
	all := append([]ratelimit.Report{}, a.p.limits.Report()...)
	if limit := q.Get("limit"); limit != "" {
		if !slices.Contains(a.p.limits.Limits(), limit) {
			return nil, problemf(http.StatusNotFound, "there is no limit %.256q", limit)
		}
		all = slices.DeleteFunc(all, func(r ratelimit.Report) bool { return r.Limit != limit })
	}
	return Report{all}, nil
}

func (a *admin) consumers(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	m, err := a.model()
	if err != nil {
		return nil, err
	}
	all := Consumers{Consumers: []Consumer{}, Plans: []string{}}
	for _, c := range m.Consumers {
		all.Consumers = append(all.Consumers, Consumer{c.Name, planOf(c)})
	}
	for _, p := range m.Plans {
		all.Plans = append(all.Plans, p.Name)
	}
	return all, nil
}

func (a *admin) usage(r *http.Request) (any, error) {
	u, err := a.consumer(r)
	if err != nil {
		return nil, err
	}
	u.Limits, err = a.p.limits.Usage(r.Context(), u.Consumer, u.Plan)
	if u.Limits == nil {
		u.Limits = []ratelimit.Usage{}
	}
	return u, err
}

func (a *admin) adjust(r *http.Request) (any, error) {
	u, err := a.consumer(r)
	if err != nil {
		return nil, err
	}
	change, err := readAdjustment(r)
	if err != nil {
		return nil, err
	}
	after, err := a.p.limits.Adjust(r.Context(), u.Consumer, u.Plan, change.Limit, change.Hits)
	if err != nil {
		return nil, err
	}
	a.p.o.Log.Info("usage adjusted", "consumer", u.Consumer, "limit", change.Limit, "hits", change.Hits, "used", after.Used)
	u.Limits = []ratelimit.Usage{after}
	return u, nil
}

// consumer is who the path names, and the plan: that of the policy unless the query names one.
func (a *admin) consumer(r *http.Request) (ConsumerUsage, error) {
	name := r.PathValue("consumer")
	if name == "" || len(name) > maxConsumer || !utf8.ValidString(name) {
		return ConsumerUsage{}, problemf(http.StatusBadRequest, "name a consumer, of at most %d bytes, in UTF-8: /usage/CONSUMER", maxConsumer)
	}
	q, err := query(r, "plan")
	if err != nil {
		return ConsumerUsage{}, err
	}
	m, err := a.model()
	if err != nil {
		return ConsumerUsage{}, err
	}
	u := ConsumerUsage{Consumer: name}
	for _, c := range m.Consumers {
		if c.Name == name || known(c, name) {
			u.Consumer, u.Plan = c.Name, planOf(c)
		}
	}
	if u.Consumer != name {
		u.Identity = name
	}
	u.Plan = cmp.Or(q.Get("plan"), u.Plan)
	return u, nil
}

// model is the policy that is served.
func (a *admin) model() (*policy.Model, error) {
	m := a.p.control.Outcome().Model
	if m == nil {
		return nil, problemf(http.StatusServiceUnavailable, "no whole policy has been loaded yet")
	}
	return m, nil
}

// planned is the setting of a consumer that gives it a plan.
type planned interface{ Plan() string }

func planOf(c *policy.Consumer) string {
	if p, ok := policy.Find[planned](c.Settings); ok {
		return p.Plan()
	}
	return ""
}

// known tells whether the identity is one of the consumer's.
func known(c *policy.Consumer, identity string) bool {
	for _, ids := range policy.Each[auth.Identifier](c.Settings) {
		if slices.Contains(ids.Identities(), identity) {
			return true
		}
	}
	return false
}

// query reads the query, in which nothing but these names may stand, each once.
func query(r *http.Request, names ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, problemf(http.StatusBadRequest, "the query can't be read: %w", err)
	}
	for name, values := range q {
		if !slices.Contains(names, name) {
			return nil, problemf(http.StatusBadRequest, "there is no parameter %.64q here", name)
		}
		if len(values) > 1 {
			return nil, problemf(http.StatusBadRequest, "the parameter %s stands here twice", name)
		}
	}
	return q, nil
}

// readAdjustment reads a body.
func readAdjustment(r *http.Request) (Adjustment, error) {
	var change Adjustment
	if err := readBody(r, &change, `{"limit": NAME, "hits": NUMBER}`); err != nil {
		return Adjustment{}, err
	}
	switch {
	case change.Limit == "":
		return Adjustment{}, problemf(http.StatusBadRequest, "limit: name one that /usage/CONSUMER lists")
	case change.Hits == 0:
		return Adjustment{}, problemf(http.StatusBadRequest, "hits: want a number above 0 to count, below 0 to give back")
	}
	return change, nil
}

// readBody reads a body of the form that is told where it has another. That it has to be JSON by its type keeps forms of other
// sites out.
func readBody(r *http.Request, into any, form string) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return problemf(http.StatusUnsupportedMediaType, "want content-type: application/json")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return problemf(http.StatusBadRequest, "the body can't be read: %w", err)
	case len(body) > maxBody:
		return problemf(http.StatusRequestEntityTooLarge, "want a body of at most %d bytes", maxBody)
	}
	in := json.NewDecoder(bytes.NewReader(body))
	in.DisallowUnknownFields()
	err = in.Decode(into)
	if _, end := in.Token(); err == nil && !errors.Is(end, io.EOF) {
		err = errors.New("something comes after it")
	}
	if err != nil {
		return problemf(http.StatusBadRequest, "want %s: %w", form, err)
	}
	return nil
}

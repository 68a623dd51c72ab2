package app

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/policy"
)

// Keys is what GET /keys answers: the API keys that there are, without their secrets.
type Keys struct {
	Keys []auth.KeyInfo `json:"keys"`
}

// NewKey is what POST /keys takes.
type NewKey struct {
	Consumer string    `json:"consumer"`
	Entries  []string  `json:"entries,omitempty"` // the auth entries that take the key; none: all of apiKey
	Plan     string    `json:"plan,omitempty"`
	Name     string    `json:"name,omitempty"`
	Expires  time.Time `json:"expires,omitzero"`
}

// Rotation is what POST /keys/ID/rotate takes.
type Rotation struct {
	Overlap string `json:"overlap"` // for how long the old key stays good: "24h"
}

// maxOverlap is the longest that two keys may be good side by side in the course of a rotation.
const maxOverlap = 90 * 24 * time.Hour

// keyRoutes are the paths about API keys.
func (a *admin) keyRoutes(mux *http.ServeMux) {
	missing := func() string {
		if a.p.auth == nil {
			return "this process knows no API keys: it has not the role auth"
		}
		return ""
	}
	a.serve(mux, "/keys", map[string]resolver{"GET": a.keys, "POST": a.makeKey}, missing)
	a.serve(mux, "/keys/{id}", map[string]resolver{"DELETE": a.revokeKey}, missing)
	a.serve(mux, "/keys/{id}/rotate", map[string]resolver{"POST": a.rotateKey}, missing)
}

func (a *admin) keys(r *http.Request) (any, error) {
	q, err := query(r, "consumer")
	if err != nil {
		return nil, err
	}
	all, err := a.p.auth.ListKeys(q.Get("consumer"))
	return Keys{all}, err
}

func (a *admin) makeKey(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	var k NewKey
	if err := readBody(r, &k, `{"consumer": NAME, "entries": [NAME], "plan": NAME, "name": TEXT, "expires": TIME}`); err != nil {
		return nil, err
	}
	m, err := a.model()
	if err != nil {
		return nil, err
	}
	if k.Plan != "" && !slices.ContainsFunc(m.Plans, func(p *policy.Plan) bool { return p.Name == k.Plan }) {
		return nil, problemf(http.StatusBadRequest, "there is no plan %.256q in the policy", k.Plan)
	}
	return a.p.auth.MakeKey(r.Context(), auth.KeyOrder{Consumer: k.Consumer, Entries: k.Entries, Plan: k.Plan, Name: k.Name, Expires: k.Expires})
}

func (a *admin) revokeKey(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	return a.p.auth.RevokeKey(r.Context(), r.PathValue("id"))
}

func (a *admin) rotateKey(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	var change Rotation
	if err := readBody(r, &change, `{"overlap": "24h"}`); err != nil {
		return nil, err
	}
	overlap, err := time.ParseDuration(cmp.Or(change.Overlap, "0s"))
	if err != nil || overlap < 0 || overlap > maxOverlap {
		return nil, problemf(http.StatusBadRequest, "overlap: want a time span of at most %dh, such as 24h", int(maxOverlap.Hours()))
	}
	return a.p.auth.RotateKey(r.Context(), r.PathValue("id"), overlap)
}

package app

import (
	"net/http"
	"time"

	"github.com/legation/legation/auth"
)

// Revocations is what GET /revocations answers: all that hold, the latest first.
type Revocations struct {
	Revocations []auth.Revocation `json:"revocations"`
}

// RevocationWanted is what POST /revocations takes.
type RevocationWanted struct {
	Name   string `json:"name"`
	Reason string `json:"reason,omitempty"`
	// Until is an RFC 3339 time, or "never": then it stands until it is undone. Left out it is [auth.Lasting]'s.
	Until string `json:"until,omitempty"`
}

// authOnly refuses where the process decides nothing.
func (a *admin) authOnly() error {
	if a.p.auth == nil {
		return problemf(http.StatusNotFound, "this process lets nobody in or out: it has not the role auth")
	}
	return nil
}

func (a *admin) revocations(r *http.Request) (any, error) {
	if err := a.authOnly(); err != nil {
		return nil, err
	}
	if _, err := query(r); err != nil {
		return nil, err
	}
	all, err := a.p.auth.Revocations()
	return Revocations{append([]auth.Revocation{}, all...)}, err
}

func (a *admin) revoke(r *http.Request) (any, error) {
	if err := a.authOnly(); err != nil {
		return nil, err
	}
	if _, err := query(r); err != nil {
		return nil, err
	}
	var wanted RevocationWanted
	if err := readBody(r, &wanted, `{"name": KIND:WHAT, "reason": TEXT, "until": TIME}`); err != nil {
		return nil, err
	}
	until, err := untilOf(wanted, time.Now())
	if err != nil {
		return nil, err
	}
	made, err := a.p.auth.Revoke(r.Context(), auth.Revocation{Name: wanted.Name, Reason: wanted.Reason, Until: until})
	if err != nil {
		return nil, err
	}
	a.p.o.Log.Info("revoked", "name", made.Name, "reason", made.Reason, "until", shownUntil(made.Until), "from", r.RemoteAddr)
	return made, nil
}

// untilOf is when the revocation ends; zero: never.
func untilOf(wanted RevocationWanted, now time.Time) (time.Time, error) {
	switch wanted.Until {
	case "never":
		return time.Time{}, nil
	case "":
		lasts, err := auth.Lasting(wanted.Name)
		if err != nil || lasts == 0 {
			return time.Time{}, err
		}
		return now.Add(lasts), nil
	}
	until, err := time.Parse(time.RFC3339, wanted.Until)
	if err != nil {
		return time.Time{}, problemf(http.StatusBadRequest, `until: want "never" or a time such as 2031-01-31T00:00:00Z, got %.64q`, wanted.Until)
	}
	return until, nil
}

func (a *admin) unrevoke(r *http.Request) (any, error) {
	if err := a.authOnly(); err != nil {
		return nil, err
	}
	if _, err := query(r); err != nil {
		return nil, err
	}
	undone, err := a.p.auth.Unrevoke(r.Context(), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	a.p.o.Log.Info("revocation undone", "name", undone.Name, "from", r.RemoteAddr)
	return undone, nil
}

func shownUntil(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

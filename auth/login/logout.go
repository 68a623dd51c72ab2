package login

import (
	"context"
	"net/url"
	"time"
)

// maxHint is how many bytes of ID token are told to the provider at a logout: they stand in a URL.
const maxHint = 4 << 10

// logout ends a session by a POST, here and at the provider. A GET only asks whether that is meant: any page could send
// a browser to a URL, but SameSite and what browsers tell of a request's origin keep other sites from posting a form.
func (f *Flow) logout(ctx context.Context, q Request, b browser, now time.Time) Outcome {
	if q.Method != "GET" && q.Method != "POST" {
		return answered(notAllowed("GET, POST"))
	}
	if q.Method == "GET" && b.session == "" {
		return answered(pageOut.answer())
	}
	if q.Method == "GET" {
		return answered(pageConfirm.answer())
	}
	if !b.posts(q) {
		return answered(pageForeign.answer())
	}
	var ended, hint string
	if b.session != "" {
		// Without the record there is no hint, and the provider asks whom to log out.
		if l, err := f.load(ctx, b.session, now); err == nil && l != nil && len(l.session.IDToken) <= maxHint {
			hint = l.session.IDToken
		}
		if err := f.end(ctx, b.session); err != nil {
			f.options.Log.Debug("session not deleted", "login", f.config.Name, "error", err)
			return answered(pageStill.answer())
		}
		ended = idOf(b.session)
	}
	answer := f.farewell(q, b, hint, now)
	answer.Headers = append(answer.Headers, b.setCookie(b.prefix+f.base, "", 0))
	return Outcome{Answer: &answer, Ended: ended}
}

// posts tells whether the request comes from a page of the same origin, or from no page.
func (b *browser) posts(q Request) bool {
	if site := q.Header("sec-fetch-site"); site != "" {
		return site == "same-origin" || site == "none"
	}
	from := q.Header("origin")
	return from == "" || from == b.origin
}

// farewell is what a browser gets that is logged out.
func (f *Flow) farewell(q Request, b browser, hint string, now time.Time) Answer {
	if mode := q.Header("sec-fetch-mode"); mode != "" && mode != "navigate" {
		return Answer{Status: 204, Headers: [][2]string{{"cache-control", "no-store"}}, Reason: pageOut.reason}
	}
	after := f.config.AfterLogout
	p := f.metadata(now)
	if p == nil || p.EndSession == "" {
		if after == "" {
			return pageOut.answer()
		}
		return seeOther(b.origin + after)
	}
	setDefault(&after, "/")
	v := url.Values{"client_id": {f.config.ClientID}, "post_logout_redirect_uri": {b.origin + after}}
	if hint != "" {
		v.Set("id_token_hint", hint)
	}
	return seeOther(withQuery(p.EndSession, v))
}

// seeOther has a browser that posted get another page.
func seeOther(to string) Answer {
	a := redirect(pageOut.reason, to)
	a.Status = 303
	return a
}

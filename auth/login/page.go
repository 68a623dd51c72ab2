package login

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// page is what a person sees of a login. Nothing in it comes from a request.
type page struct {
	status      int
	reason      string
	title, text string
	action      string // HTML; "" = a link to start again
}

const (
	tryAgain   = `<a href="/">Try again</a>`
	noAction   = `<a href="/">Continue</a>`
	logoutForm = `<form method="post"><button>Log out</button></form>`
)

var (
	pageInsecure  = page{400, "login_insecure", "This page needs a secure connection", "Logging in works over HTTPS only.", ""}
	pageUnready   = page{503, "login_provider_unknown", "Login is not available", "The login service can't be reached. Try again in a moment.", ""}
	pageBusy      = page{503, "login_busy", "Login is not available", "Too many people are logging in. Try again in a moment.", ""}
	pageMalformed = page{400, "login_malformed", "This is not how a login goes", "The answer of the login service can't be read.", ""}
	pageState     = page{400, "login_state", "This login is not known here", "It was begun in another browser, more than ten minutes ago, or is done already.", ""}
	pageExpired   = page{400, "login_expired", "This login took too long", "It was begun more than ten minutes ago.", ""}
	pageIssuer    = page{400, "login_issuer", "This login can't be trusted", "It was answered by another login service than the one that was asked.", ""}
	pageToken     = page{502, "login_token", "The login could not be completed", "What the login service told about you can't be trusted.", ""}
	pageRecords   = page{503, "login_records", "The login could not be completed", "It can't be remembered right now. Try again in a moment.", ""}
	pageForeign   = page{403, "logout_foreign", "Log out?", "Another site asked for that. Nothing has happened yet.", logoutForm}
	pageStill     = page{503, "logout_records", "You are still logged in", "The logout could not be completed. Try again in a moment.", logoutForm}
	pageConfirm   = page{200, "logout_confirm", "Log out?", "You will have to log in again.", logoutForm}
	pageOut       = page{200, "logout", "You are logged out", "To be safe from other users of this device, close the browser as well.", noAction}
)

// pageRefused is for a login that the provider did not grant. The code is one of [refusals].
func pageRefused(code string) page {
	p := page{502, "login_refused_" + code, "The login could not be completed", "The login service answered with an error.", ""}
	if code == "access_denied" {
		p.status, p.text = 403, "The login was cancelled, or you are not allowed in."
	}
	return p
}

const (
	pageStyle = `body{font:1rem/1.5 system-ui,sans-serif;max-width:30rem;margin:20vh auto 0;padding:0 1.5rem;color:#1b1f24;background:#fff}` +
		`h1{font-size:1.4rem;line-height:1.25;margin:0 0 .5rem}p{margin:0 0 1.5rem;color:#57606a}` +
		`a,button{display:inline-block;font:inherit;color:#fff;background:#1f5fbf;border:0;border-radius:.375rem;padding:.5rem 1rem;text-decoration:none;cursor:pointer}` +
		`@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#15181c}p{color:#9aa4af}}`
	pageHTML = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>%s</title><style>%s</style></head>
<body><main><h1>%s</h1><p>%s</p>%s</main></body>
</html>
`
)

// pagePolicy lets a page load nothing. Its forms may go anywhere, since browsers hold the redirects that follow against a
// form-action, and what the provider redirects to is its own affair.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; frame-ancestors 'none'"
}()

func (p page) answer() Answer {
	action := p.action
	if action == "" {
		action = tryAgain
	}
	a := Answer{
		Status: p.status,
		Headers: [][2]string{
			{"content-type", "text/html; charset=utf-8"},
			{"cache-control", "no-store"},
			{"content-security-policy", pagePolicy},
			{"x-content-type-options", "nosniff"},
			{"referrer-policy", "same-origin"}, // with none at all, browsers would hide where the form's POST comes from
		},
		Body:   fmt.Sprintf(pageHTML, p.title, pageStyle, p.title, p.text, action),
		Reason: p.reason,
	}
	if p.status == 503 {
		a.Headers = append(a.Headers, [2]string{"retry-after", "10"})
	}
	return a
}

// notAllowed is for methods other than those.
func notAllowed(methods string) Answer {
	a := page{405, "login_method", "This is not how a login goes", "The page was asked for in a way that it isn't meant for.", ""}.answer()
	a.Headers = append(a.Headers, [2]string{"allow", methods})
	return a
}

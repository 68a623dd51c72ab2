package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/legation/legation/app"
	"github.com/legation/legation/auth"
)

func TestRevoke(t *testing.T) {
	t.Parallel()
	since := time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC)
	url, requests := adminAPI(t, map[string]any{
		"/revocations":                        auth.Revocation{Name: "subject:idp/alice", Since: since, Note: "no route takes it"},
		"/revocations/subject:idp%2Fa%2F%2Fb": auth.Revocation{Name: "subject:idp/a//b", Since: since},
	})
	for _, row := range []struct {
		args   []string
		status int
		asks   string // with MOMENT for a time
		says   string
	}{
		{[]string{"subject", "idp/alice"}, 0, `POST /revocations application/json {"name":"subject:idp/alice"}`, "revoked subject:idp/alice, until undone\nlegation: note: no route takes it\n"},
		{[]string{"jti", "idp/a/b", "--until", "never", "--reason", "lost"}, 0, `POST /revocations application/json {"name":"jti:idp/a/b","reason":"lost","until":"never"}`, ""},
		{[]string{"consumer", "acme", "--until", "30d"}, 0, `POST /revocations application/json {"name":"consumer:acme","until":"MOMENT"}`, ""},
		{[]string{"session", "x", "--until", "90m"}, 0, `POST /revocations application/json {"name":"session:x","until":"MOMENT"}`, ""},
		{[]string{"key", "keys/7", "--until", "2999-01-31T00:00:00+01:00"}, 0, `POST /revocations application/json {"name":"key:keys/7","until":"2999-01-30T23:00:00Z"}`, ""},
		{[]string{"undo", "subject:idp/a//b"}, 0, "DELETE /revocations/subject:idp%2Fa%2F%2Fb", "good again: subject:idp/a//b\n"},
		{[]string{"undo", "consumer:other"}, 1, "DELETE /revocations/consumer:other", "404 Not Found: there is no such thing"},

		{[]string{"subject", "alice"}, 2, "", "want subject:ENTRY/VALUE"},
		{[]string{"consumer", "idp/alice"}, 2, "", "an identity is subject:ENTRY/VALUE"},
		{[]string{"session", "x", "--until", "30"}, 2, "", "want a time to come"},
		{[]string{"session", "x", "--until", "-1h"}, 2, "", "want a time to come"},
		{[]string{"session", "x", "--until", "99999d"}, 2, "", "want a time to come"},
		{[]string{"session", "x", "--until", "2001-01-31T00:00:00Z"}, 2, "", "want a time to come"},
		{[]string{"token", " "}, 2, "", "there is no token"},
		{[]string{"token"}, 2, "", "name one TOKEN"},
		{[]string{"undo"}, 2, "", "give the name of one"},
		{[]string{"undo", ""}, 2, "", "give the name of one"},
		{nil, 2, "", "say what to revoke"},
		{[]string{"everybody"}, 2, "", `nothing called "everybody" can be revoked`},
	} {
		args := append([]string{"revoke"}, row.args...)
		if row.asks != "" {
			args = append(args, "--server", url)
		}
		status, out, errs := legation(args...)
		if status != row.status || !strings.Contains(out+errs, row.says) {
			t.Errorf("%v: got %d %s%s, want %d %s", row.args, status, out, errs, row.status, row.says)
		}
		var want []string
		if row.asks != "" {
			want = []string{row.asks}
		}
		got := requests()
		if strings.Contains(row.asks, "MOMENT") {
			before, rest, _ := strings.Cut(got[0], `"until":"`)
			moment, after, _ := strings.Cut(rest, `"`)
			if at, err := time.Parse(time.RFC3339, moment); err != nil || time.Until(at) < 80*time.Minute {
				t.Errorf("%v: until %s, %v", row.args, moment, err)
			}
			got = []string{before + `"until":"MOMENT"` + after}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v asks (-want +got):\n%s", row.args, diff)
		}
	}
}

// A token is known by its hash alone, and its revocation stands for as long as it can be good.
func TestRevokeToken(t *testing.T) {
	t.Parallel()
	url, requests := adminAPI(t, map[string]any{"/revocations": auth.Revocation{Name: "token:x"}})
	sign := func(args ...string) string {
		_, out, _ := legation(append([]string{"token", "--sub", "alice"}, args...)...)
		return strings.TrimSpace(out)
	}
	token := sign("--ttl", "48h")
	r := auth.TokenRevocation(token)
	want := app.RevocationWanted{Name: r.Name, Until: r.Until.UTC().Format(time.RFC3339)}
	for _, row := range []struct {
		in   string
		args []string
	}{{"", []string{token}}, {token + "\nmore\n", []string{"-"}}, {"Bearer " + token, []string{"-"}}} {
		root := rootCommand()
		var out bytes.Buffer
		root.SetIn(strings.NewReader(row.in))
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append([]string{"revoke", "token", "--server", url}, row.args...))
		must(t, root.Execute())
		asked := requests()[0]
		var got app.RevocationWanted
		must(t, json.Unmarshal([]byte(asked[strings.IndexByte(asked, '{'):]), &got))
		if diff := cmp.Diff(want, got); diff != "" || strings.Contains(asked+out.String(), token[:20]) {
			t.Errorf("%s %s", diff, out.String())
		}
	}
	for _, row := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{token, "--until", "1h"}, 2, "it would be good again"},
		{[]string{sign("--claim", "exp=1000000000")}, 1, "the token ended by itself at 2001-"},
		{[]string{token, "--until", "90d"}, 0, "revoked token:x"},
		{[]string{token, "--until", "never"}, 0, "revoked token:x"},
		{[]string{"opaque"}, 0, "revoked token:x"},
	} {
		status, out, errs := legation(append([]string{"revoke", "token", "--server", url}, row.args...)...)
		if status != row.status || !strings.Contains(out+errs, row.says) || strings.Contains(out+errs, token[:20]) {
			t.Errorf("%v: got %d %s%s, want %d %s", row.args[1:], status, out, errs, row.status, row.says)
		}
	}
}

func TestRevokeList(t *testing.T) {
	t.Parallel()
	at := time.Date(2031, 1, 2, 3, 4, 5, 0, time.Local)
	all := app.Revocations{Revocations: []auth.Revocation{
		{Name: "subject:idp/alice", Since: at, Reason: "laptop stolen"},
		{Name: "jti:idp/\x1b[2J", Since: at, Until: at.AddDate(0, 0, 1)},
	}}
	url, _ := adminAPI(t, map[string]any{"/revocations": all})
	status, out, errs := legation("revoke", "list", "--server", url)
	want := "NAME               SINCE                UNTIL                REASON\n" +
		"subject:idp/alice  2031-01-02 03:04:05  undone               laptop stolen\n" +
		`"jti:idp/\x1b[2J"  2031-01-02 03:04:05  2031-01-03 03:04:05  -` + "\n"
	if diff := cmp.Diff(want, out); status != 0 || diff != "" {
		t.Errorf("got %d %s (-want +got):\n%s", status, errs, diff)
	}
	var got app.Revocations
	asked(t, 0, &got, "revoke", "list", "--server", url, "-o", "json")
	if len(got.Revocations) != 2 || !got.Revocations[0].Since.Equal(at) {
		t.Errorf("%+v", got)
	}
	empty, _ := adminAPI(t, map[string]any{"/revocations": app.Revocations{Revocations: []auth.Revocation{}}})
	if _, out, _ := legation("revoke", "list", "--server", empty); out != "nothing is revoked\n" {
		t.Error(out)
	}
}

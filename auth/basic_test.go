package auth

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

func bcryptOf(password string, cost int) string {
	return string(must(bcrypt.GenerateFromPassword([]byte(password), cost)))
}

func argonOf(password string, memory, passes uint32) string {
	salt := []byte("0123456789abcdef")
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=1$%s$%s", memory, passes, b.EncodeToString(salt),
		b.EncodeToString(argon2.IDKey([]byte(password), salt, passes, memory, 1, 32)))
}

// basicTable has the users of a file, and a consumer for one of them.
func basicTable(users string) Table {
	return Table{
		Rules: []Rule{{Name: "edge/staff", Providers: []Provider{{Name: "staff", Basic: &Basic{
			Users: "auth/staff", Headers: map[string]string{"x-user": "sub"},
		}}}}},
		Consumers: []Consumer{{Name: "boss", Plan: "gold", Identities: []string{"staff/alice"}}},
		Secrets:   map[string][]byte{"auth/staff": []byte(users)},
	}
}

func basicOf(text string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(text))
}

func TestPasswords(t *testing.T) {
	long := strings.Repeat("x", 72)
	s := load(t, Options{}, basicTable(strings.Join([]string{
		"# staff", "", "alice:" + bcryptOf("correct: horse", 4), "bob:" + strings.Replace(bcryptOf("b", 4), "$2a$", "$2y$", 1),
		"carol:" + argonOf("ünïcode", 64, 1), "dan:" + bcryptOf(long, 4), "erin:" + bcryptOf("", 4), "",
	}, "\r\n")))
	c := dial(t, s)
	for _, test := range []struct {
		name, authorization, want string
	}{
		{"bcrypt", basicOf("alice:correct: horse"), "200 boss"},
		{"another case of the scheme", "bAsIc " + basicOf("alice:correct: horse")[6:], "200 boss"},
		{"htpasswd's bcrypt", basicOf("bob:b"), "200 staff/bob"},
		{"Argon2id", basicOf("carol:ünïcode"), "200 staff/carol"},
		{"72 bytes", basicOf("dan:" + long), "200 staff/dan"},
		{"73 bytes", basicOf("dan:" + long + "x"), "401 password_wrong"},
		{"empty password", basicOf("erin:"), "200 staff/erin"},
		{"wrong", basicOf("alice:correct: hors"), "401 password_wrong"},
		{"another's", basicOf("alice:b"), "401 password_wrong"},
		{"wrong for Argon2id", basicOf("carol:unicode"), "401 password_wrong"},
		{"nobody", basicOf("nobody:b"), "401 password_wrong"},
		{"another case of the name", basicOf("Alice:correct: horse"), "401 password_wrong"},
		{"no name", basicOf(":b"), "401 password_wrong"},
		{"no colon", basicOf("alice"), "401 password_malformed"},
		{"NUL", basicOf("alice:b\x00"), "401 password_malformed"},
		{"line end", basicOf("alice\n:b"), "401 password_malformed"},
		{"C1 control", basicOf("alice:\u0085"), "401 password_malformed"},
		{"not UTF-8", basicOf("alice:\xff"), "401 password_malformed"},
		{"not base64", "Basic alice:b", "401 password_malformed"},
		{"without padding", strings.TrimRight(basicOf("bob:bbb"), "="), "401 password_malformed"},
		{"URL alphabet", "Basic " + base64.URLEncoding.EncodeToString([]byte("bob:???>>>")), "401 password_malformed"},
		{"nothing", "Basic ", "401 password_malformed"},
		{"no space", "Basic", "401 password_malformed"},
		{"too long", basicOf("alice:" + strings.Repeat("x", maxPassword)), "401 password_malformed"},
		{"two", basicOf("alice:correct: horse") + "," + basicOf("alice:correct: horse"), "400 two_credentials"},
		{"a token", "Bearer x", "401 no_credentials"},
		{"none", "", "401 no_credentials"},
	} {
		got := check(t, c, ask("edge/staff", test.authorization))
		told := fmt.Sprint(got.status, " ", got.meta["reason"])
		if got.status == 200 {
			told = fmt.Sprint("200 ", got.meta["consumer"])
			if !slices.Equal(got.removed, []string{"authorization"}) {
				t.Errorf("%s: the backend would get the password: %v", test.name, got.removed)
			}
		}
		if told != test.want {
			t.Errorf("%s: got %s, want %s", test.name, told, test.want)
		}
		if want := `Basic realm="staff", charset="UTF-8"`; got.status == 401 && got.headers["www-authenticate"] != want {
			t.Errorf("%s: challenge %s", test.name, got.headers["www-authenticate"])
		}
	}
}

func TestUsersThatCanNotBe(t *testing.T) {
	good := bcryptOf("a", 4)
	for name, lines := range map[string]string{
		"plain":             "alice:secret",
		"apr1":              "alice:$apr1$abcdefgh$0123456789012345678901",
		"SHA-1":             "alice:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=",
		"SHA-512 crypt":     "alice:$6$salt$hash",
		"crypt":             "alice:rqXexS6ZhobKA",
		"cost 12":           "alice:$2y$12$" + good[7:],
		"cut off":           "alice:" + good[:59],
		"long":              "alice:" + good + "a",
		"no hash":           "alice",
		"no name":           ":" + good,
		"twice":             "alice:" + good + "\nalice:" + good,
		"nobody":            "# nobody",
		"name with spaces":  "a\tb:" + good,
		"Argon2i":           strings.Replace("alice:"+argonOf("a", 64, 1), "argon2id", "argon2i", 1),
		"Argon2 version 16": strings.Replace("alice:"+argonOf("a", 64, 1), "v=19", "v=16", 1),
		"Argon2 too large":  strings.Replace("alice:"+argonOf("a", 64, 1), "m=64", "m=1000000", 1),
		"Argon2 too long":   strings.Replace("alice:"+argonOf("a", 64, 1), "t=1", "t=4294967295", 1),
		"Argon2 too small":  strings.Replace("alice:"+argonOf("a", 64, 1), "m=64", "m=1", 1),
		"Argon2 other text": strings.Replace("alice:"+argonOf("a", 64, 1), "m=64", "m=064", 1),
	} {
		_, err := ParseUsers([]byte(lines))
		if err == nil {
			t.Errorf("%s is taken", name)
			continue
		}
		if _, hash, _ := strings.Cut(lines, ":"); hash != "" && strings.Contains(err.Error(), hash) {
			t.Errorf("%s: %v tells the hash", name, err)
		}
		if New(Options{}).Load(basicTable(lines)) == nil {
			t.Errorf("%s is loaded", name)
		}
	}
}

func TestPasswordsAreTriedOnceInFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := basicTable("alice:" + bcryptOf("a", 4) + "\nbob:" + bcryptOf("b", 4))
		s := load(t, Options{}, table)
		pending := func(text string) bool {
			d := newDecision()
			d.read(ask("edge/staff", basicOf(text)))
			d.begin(s.table.Load(), time.Now())
			tried := d.pending != nil
			if tried && !d.pending.waits() {
				t.Error("a password would be tried while others wait")
			}
			d.work(t.Context(), time.Now(), true)
			return tried
		}
		want := func(what string, want bool, text string) {
			t.Helper()
			if got := pending(text); got != want {
				t.Errorf("%s: tried %v, want %v", what, got, want)
			}
		}
		want("first", true, "alice:a")
		want("second", false, "alice:a")
		want("bob", true, "bob:b")
		want("wrong", true, "alice:b")
		want("wrong again", true, "alice:b")
		table.Secrets["auth/staff"] = []byte(strings.Replace(string(table.Secrets["auth/staff"]), "alice:", "alice:"+bcryptOf("c", 4)+"\nold:", 1))
		if err := s.Load(table); err != nil {
			t.Fatal(err)
		}
		want("a new hash", true, "alice:a")
		want("bob, whose hash is as it was", false, "bob:b")
		time.Sleep(rememberFor)
		want("after five minutes", true, "bob:b")
	})
}

func TestOneTrialServesAllWhoAskTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords()
		trial := trial{hash: bcryptOf("a", 4), password: "a"}
		for range cap(p.places) { // as if others were being tried
			p.places <- struct{}{}
		}
		answers := make(chan bool, 100)
		for range cap(answers) {
			go func() {
				good, err := p.check(trial)
				answers <- good && err == nil
			}()
		}
		synctest.Wait()
		if len(p.waiting) != 1 {
			t.Errorf("%d wait, want one for all", len(p.waiting))
		}
		for range cap(p.places) {
			<-p.places
		}
		for range cap(answers) {
			if !<-answers {
				t.Error("not good")
			}
		}
	})
}

func TestTooManyTrialsAreTurnedAway(t *testing.T) {
	s := load(t, Options{}, basicTable("alice:"+bcryptOf("a", 4)))
	for range cap(s.guesses.waiting) {
		s.guesses.waiting <- struct{}{}
	}
	c := dial(t, s)
	if got := check(t, c, ask("edge/staff", basicOf("alice:a"))); got.status != 503 || got.meta["reason"] != "busy" {
		t.Errorf("got %d %v", got.status, got.meta)
	}
	for range cap(s.guesses.waiting) {
		<-s.guesses.waiting
	}
	if got := check(t, c, ask("edge/staff", basicOf("alice:a"))); got.status != 200 {
		t.Errorf("then got %d %v", got.status, got.meta)
	}
}

func TestRememberedPasswordsAreBounded(t *testing.T) {
	p := newPasswords()
	now := time.Now()
	for i := range 3 * mostRemembered {
		p.mu.Lock()
		p.put(p.sum("hash", fmt.Sprint(i), ""), now.Add(time.Minute))
		p.mu.Unlock()
	}
	if n := len(p.known) + len(p.before); n > mostRemembered {
		t.Errorf("%d are remembered", n)
	}
	if !p.good(p.sum("hash", fmt.Sprint(3*mostRemembered-1), ""), now) {
		t.Error("the last one is forgotten")
	}
}

func TestGuessGoesOnThoughNobodyWaits(t *testing.T) {
	p := newPasswords()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	one := trial{hash: bcryptOf("a", 4), password: "a", sum: p.sum("hash", "alice", "a")}
	guess{by: p, trial: one, grant: new(grant)}.do(ctx, time.Now())
	if !p.good(one.sum, time.Now()) {
		t.Error("what was tried is lost")
	}
}

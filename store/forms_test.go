package store

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// odd is a password with what URLs, ACL files and Redis' protocol could trip over.
const odd = "p@ss:w/rd?&=#%25 é\"'\\$>{}"

// works tells whether a store counts at url, with a window, a GCRA bucket and both at once.
func works(t *testing.T, url string) {
	t.Helper()
	s := openReady(t, url)
	window, gcra := daily("form", 10, 1), bucketGCRA("form", 1, time.Hour, 10, 1)
	count(t, s, window)
	count(t, s, gcra)
	if out := count(t, s, window, gcra); out[0].Remaining != 8 || out[1].Remaining != 8 {
		t.Errorf("%+v, want 8 left of both", out)
	}
}

func TestRedisForms(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "r.sock")
	r := startRedis(t, "--unixsocket", socket)
	admin := r.client()
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "who@where", "on", ">"+odd, "~*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "default", "resetpass", ">"+odd).Err(); err != nil {
		t.Fatal(err)
	}
	user, alone := url.UserPassword("who@where", odd), url.UserPassword("", odd)
	for i, u := range []url.URL{
		{Scheme: "redis", User: user, Host: r.addr(), Path: "/1"},
		{Scheme: "redis", User: alone, Host: r.addr(), Path: "/2"},
		{Scheme: "redis", User: alone, Host: r.addr(), RawQuery: "db=3"},
		{Scheme: "unix", User: user, Path: socket, RawQuery: "db=4"},
		{Scheme: "unix", User: alone, Path: socket, RawQuery: "db=5&client_name=legation"},
	} {
		works(t, u.String())
		c := redis.NewClient(&redis.Options{Addr: r.addr(), Password: odd, DB: i + 1})
		if keys := c.Keys(t.Context(), "legation:{form}*").Val(); len(keys) != 2 {
			t.Errorf("%s: keys in database %d: %q, want two", u.Redacted(), i+1, keys)
		}
		c.Close()
	}
}

// issuer is a certificate authority of a test.
type issuer struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T, name string) *issuer {
	t.Helper()
	i := &issuer{dir: t.TempDir()}
	i.cert, i.key = i.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true}, "ca")
	return i
}

// issue writes NAME.pem and NAME.key.
func (i *issuer) issue(t *testing.T, template *x509.Certificate, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := cmp.Or(i.cert, template), cmp.Or(i.key, key)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(i.path(name+file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (i *issuer) path(name string) string { return filepath.Join(i.dir, name) }

func TestRedisOverTLSWithOwnAuthorityAndClientCertificate(t *testing.T) {
	needsTLS(t)
	ours, other := newIssuer(t, "ours"), newIssuer(t, "other")
	ours.issue(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, "redis")
	ours.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "legation"}}, "client")
	other.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "legation"}}, "client")
	port := freePort(t)
	startRedis(t, "--tls-port", fmt.Sprint(port), "--tls-cert-file", ours.path("redis.pem"), "--tls-key-file", ours.path("redis.key"),
		"--tls-ca-cert-file", ours.path("ca.pem"), "--tls-auth-clients", "yes")
	with := func(ca, client *issuer) string {
		q := url.Values{}
		if ca != nil {
			q.Set("tls_ca", ca.path("ca.pem"))
		}
		if client != nil {
			q.Set("tls_cert", client.path("client.pem"))
			q.Set("tls_key", client.path("client.key"))
		}
		return fmt.Sprintf("rediss://user:hunter2@127.0.0.1:%d?%s", port, q.Encode())
	}
	works(t, strings.Replace(with(ours, ours), "user:hunter2@", "", 1))
	for name, u := range map[string]string{
		"the system's authorities": with(nil, ours),
		"another authority":        with(other, ours),
		"no client certificate":    with(ours, nil),
		"another's certificate":    with(ours, other),
	} {
		t.Run(name, func(t *testing.T) { staysAway(t, u, "certificate", "hunter2") })
	}
}

// staysAway opens a store that never comes up, for reason, and looks for the secrets in all that it says.
func staysAway(t *testing.T, url, reason string, secrets ...string) {
	t.Helper()
	var log lines
	s := open(t, Options{URL: url, Log: logTo(&log)})
	until(t, patience, reason, func() bool { return strings.Contains(s.Health().Reason, reason) })
	_, err := s.Count(t.Context(), []Hit{daily("a", 1, 1)})
	if !isUnavailable(err) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	until(t, patience, "operators to be told", func() bool { return strings.Contains(log.String(), "store unavailable") })
	s.Close()
	for _, secret := range secrets {
		if text := fmt.Sprint(err, log.String(), s.Health()); strings.Contains(text, secret) {
			t.Errorf("%q is told: %s", secret, text)
		}
	}
}

// TestNoSecretIsTold: whatever keeps Redis away, what we say has the password in no form.
func TestNoSecretIsTold(t *testing.T) {
	user := url.UserPassword("who", odd)
	encoded, _ := strings.CutPrefix(user.String(), "who:")
	secrets := []string{odd, encoded, url.QueryEscape(odd), fmt.Sprintf("%q", odd)[1:8]}
	r := startRedis(t, "--requirepass", "right")
	absent := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	for _, test := range []struct{ name, scheme, host, query, reason string }{
		{"wrong password", "redis", r.addr(), "", "WRONGPASS"},
		{"absent", "redis", absent, "", "refused"},
		{"no TLS there", "rediss", r.addr(), "", ""},
		{"absent sentinel", "redis", absent, "master_name=main&password=" + url.QueryEscape(odd), ""},
		{"absent cluster", "redis", absent, "cluster=true", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := url.URL{Scheme: test.scheme, User: user, Host: test.host, RawQuery: test.query}
			staysAway(t, u.String(), test.reason, secrets...)
		})
	}
}

func TestTLSFilesThatWontDo(t *testing.T) {
	i := newIssuer(t, "ours")
	empty := i.path("empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ scheme, query, want string }{
		{"redis", "tls_ca=" + i.path("ca.pem"), "are for rediss://"},
		{"rediss", "tls_ca=" + i.path("none.pem"), "no such file"},
		{"rediss", "tls_ca=" + empty, "no certificate"},
		{"rediss", "tls_cert=" + i.path("ca.pem"), "go together"},
		{"rediss", "tls_cert=" + empty + "&tls_key=" + i.path("ca.key"), "failed to find"},
	} {
		s, err := Open(Options{URL: test.scheme + "://who:hunter2@127.0.0.1?" + test.query})
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s %s: got %v, want %q", test.scheme, test.query, err, test.want)
		}
	}
}

// The ACL rule of docs/companion.md: the commands that a store sends, and what a Cluster, a database and the warning of one
// that evicts need besides.
const (
	aclKeys     = "~legation:*"
	aclCommands = "+evalsha +eval +time +mget +set +psetex +incr +incrby +pexpire +del"
	aclBesides  = "+info +select +cluster|slots"
	aclShared   = "&legation:* +get +hmget +hget +hset +hdel +hlen +hscan +zadd +zcard +zrange +zrangebyscore +zremrangebyrank +publish +subscribe"
)

// TestMinimalACL: nothing is refused to a user who may do just that, and all of it is used.
func TestMinimalACL(t *testing.T) {
	r := startRedis(t)
	admin := r.client()
	do(t, admin, "ACL SETUSER legation reset on >pw "+aclKeys+" -@all "+aclCommands+" +info +select")
	u := "redis://legation:pw@" + r.addr()
	s := openReady(t, u)
	window, gcra := daily("acl", 1000, 1), bucketGCRA("acl", 1, time.Hour, 10, 2)
	sliding := Hit{Key: "acl", Algorithm: SlidingWindow, Limit: 10, Window: time.Minute, Hits: 1}
	calendar := Hit{Key: "acl", Algorithm: Calendar, Limit: 10, Period: Month, Hits: 1}
	leased := daily("acl leased", 100_000, 1)
	leased.Lease = 100
	used := func() string { return admin.Info(t.Context(), "commandstats").Val() }
	for n := 0; n < 3; n++ {
		do(t, admin, "SCRIPT FLUSH")
		count(t, s, window, gcra, sliding, calendar)
		count(t, s, window)
		gcra.Hits, sliding.Hits, window.Hits = -2, -1, -1
		count(t, s, gcra, sliding)
		count(t, s, window)
		gcra.Hits, sliding.Hits, window.Hits = 2, 1, 1
		rushes(s, window, 20)
		swarm(500, func(int) bool { return count(t, s, leased)[0].Allowed })
		do(t, admin, "FLUSHALL") // the next increment finds its key gone
		count(t, s, window)
	}
	everyKeyEnds(t, admin)
	for _, c := range strings.Fields(aclCommands) {
		until(t, patience, c, func() bool {
			count(t, s, window)
			return strings.Contains(used(), "cmdstat_"+c[1:]+":")
		})
	}
	works(t, u+"/7")
	if refused := admin.Do(t.Context(), "ACL", "LOG").Val(); fmt.Sprint(refused) != "[]" {
		t.Errorf("refused: %v", refused)
	}
	c := redis.NewClient(&redis.Options{Addr: r.addr(), Username: "legation", Password: "pw", DisableIdentity: true})
	defer c.Close()
	if err := c.Set(t.Context(), "other", 1, 0).Err(); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("another's key: got %v, want NOPERM", err)
	}
}

// TestMinimalACLOfWhatIsShared: the same for sessions, keys and revocations.
func TestMinimalACLOfWhatIsShared(t *testing.T) {
	r := startRedis(t)
	admin := r.client()
	do(t, admin, "ACL SETUSER legation reset on >pw "+aclKeys+" resetchannels -@all "+aclCommands+" "+aclShared)
	s, b := openKnown(t, Options{URL: "redis://legation:pw@" + r.addr()})
	uses(t, s, b)
	swarm(10_100, func(i int) bool { // more than are remembered as changed
		put(t, b, fmt.Sprint(i), "")
		return true
	})
	over := &row{name: "over", written: 5, expires: 1, until: 2}
	admin.HSet(t.Context(), "legation:{board:keys}", "=over", over.pack())
	if err := newMirror(b.(*board), s.far).write(t.Context(), "sweep", "over"); err != nil {
		t.Error(err)
	}
	used := admin.Info(t.Context(), "commandstats").Val()
	for _, c := range strings.Fields(aclShared)[1:] {
		if !strings.Contains(used, "cmdstat_"+c[1:]+":") {
			t.Errorf("%s is used by nothing", c)
		}
	}
	if refused := admin.Do(t.Context(), "ACL", "LOG").Val(); fmt.Sprint(refused) != "[]" {
		t.Errorf("refused: %v", refused)
	}
}

// uses does what is done with records and a board.
func uses(t *testing.T, s *Shared, b Board) {
	t.Helper()
	put(t, b, "a", "1")
	put(t, b, "b", "2")
	late := newMirror(newBoard("keys", nil), s.far)
	if err := late.sync(t.Context()); err != nil {
		t.Error(err)
	}
	put(t, b, "c", "3")
	if err := late.sync(t.Context()); err != nil {
		t.Error(err)
	}
	if _, ok := late.b.Get("c"); !ok {
		t.Error("another process doesn't know")
	}
	testRecords(t, s)
	for i := range 20 {
		if err := s.Records("session").Put(t.Context(), fmt.Sprint(i), nil, time.Minute); err != nil {
			t.Error(err)
		}
	}
}

// TestMinimalACLOnACluster: the same user on every node, who may also ask where the slots are.
func TestMinimalACLOnACluster(t *testing.T) {
	nodes := startCluster(t)
	for _, n := range nodes {
		do(t, n.client(), "ACL SETUSER legation reset on >pw "+aclKeys+" resetchannels -@all "+aclCommands+" "+aclBesides+" "+aclShared)
	}
	works(t, "redis://legation:pw@"+nodes[0].addr()+"?cluster=true")
	shared, b := openKnown(t, Options{URL: "redis://legation:pw@" + nodes[0].addr() + "?cluster=true"})
	uses(t, shared, b)
	for _, n := range nodes {
		if refused := n.client().Do(t.Context(), "ACL", "LOG").Val(); fmt.Sprint(refused) != "[]" {
			t.Errorf("refused: %v", refused)
		}
	}
}

// TestOtherServers runs the suite over servers that are not the one of the other tests: LEGATION_REDIS_62 names a
// redis-server 6.2, the oldest that we support, and LEGATION_VALKEY a valkey-server.
func TestOtherServers(t *testing.T) {
	for _, name := range []string{"LEGATION_REDIS_62", "LEGATION_VALKEY"} {
		t.Run(name, func(t *testing.T) {
			path := os.Getenv(name)
			if path == "" {
				t.Skip(name + " names no server")
			}
			t.Setenv("LEGATION_REDIS_SERVER", path)
			r := startRedis(t)
			for line := range strings.Lines(r.client().Info(t.Context(), "server").Val()) {
				if strings.HasPrefix(line, "redis_version:") || strings.HasPrefix(line, "valkey_version:") {
					t.Log(strings.TrimSpace(line))
				}
			}
			s := openReady(t, r.url())
			for _, c := range conform {
				t.Run(c.name, func(t *testing.T) { c.test(t, s) })
			}
			t.Run("minimal ACL", TestMinimalACL)
			t.Run("forms", TestRedisForms)
			t.Run("flushed scripts", TestExactWhileScriptsAreFlushed)
			t.Run("shared", TestMinimalACLOfWhatIsShared)
			t.Run("shared and lost", TestWhatRedisLosesComesBack)
			t.Run("leases", TestThreeLeasedProcessesShareOneLimit)
		})
	}
}

// TestMinimalACLIsDocumented: the rule that people copy is the one that is tested.
func TestMinimalACLIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/companion.md")
	if err != nil {
		t.Fatal(err)
	}
	rule := "ACL SETUSER limits on >PASSWORD resetkeys " + aclKeys + " resetchannels -@all " + aclCommands + "\n"
	if !strings.Contains(string(page), rule) {
		t.Errorf("docs/companion.md doesn't have %q", rule)
	}
	if !strings.Contains(string(page), "\n"+aclShared+"\n") {
		t.Errorf("docs/companion.md doesn't have %q", aclShared)
	}
	for _, c := range strings.Fields(aclBesides) {
		if !strings.Contains(string(page), "`"+c+"`") {
			t.Errorf("docs/companion.md doesn't have %s", c)
		}
	}
}

package store

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// dial gives the client that o.URL asks for and its kind. Nothing is sent yet.
func dial(o Options) (redis.UniversalClient, string, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Fragment != "" || strings.Contains(u.Path, "@") { // err quotes the URL, password and all
		return nil, "", errors.New("redis URL: want redis://user:password@host:port/db, the password percent-encoded")
	}
	q := u.Query()
	cluster, asked := q.Get("cluster"), q.Has("cluster")
	q.Del("cluster")
	if asked && cluster != "true" && cluster != "false" {
		return nil, "", errors.New(`redis URL: cluster is "true" or "false"`)
	}
	if o.TLS, err = tlsFiles(u.Scheme, q, o.TLS); err != nil {
		return nil, "", fmt.Errorf("redis URL: %w", err)
	}
	v := *u
	v.RawQuery = q.Encode()
	switch {
	case q.Has("master_name"):
		c, err := redis.ParseFailoverURL(v.String())
		if err != nil {
			return nil, "", urlError(u, err)
		}
		return sentinel(c, o), "sentinel", nil
	case cluster == "true" || q.Has("addr"):
		c, err := redis.ParseClusterURL(v.String())
		if err != nil {
			return nil, "", urlError(u, err)
		}
		return clusterClient(c, o), "cluster", nil
	}
	c, err := redis.ParseURL(v.String())
	if err != nil {
		return nil, "", urlError(u, err)
	}
	return single(c, o), "redis", nil
}

// tlsFiles takes the files that the URL names out of q: tls_ca is the authorities to trust instead of the system's, tls_cert
// and tls_key are what we show to Redis. These two are read anew for each connection, so that they may be renewed.
func tlsFiles(scheme string, q url.Values, own *tls.Config) (*tls.Config, error) {
	ca, cert, key := q.Get("tls_ca"), q.Get("tls_cert"), q.Get("tls_key")
	q.Del("tls_ca")
	q.Del("tls_cert")
	q.Del("tls_key")
	switch {
	case ca == "" && cert == "" && key == "":
		return own, nil
	case scheme != "rediss":
		return nil, errors.New("tls_ca, tls_cert and tls_key are for rediss://")
	case (cert == "") != (key == ""):
		return nil, errors.New("tls_cert and tls_key go together")
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if own != nil {
		c = own.Clone()
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca: %s has no certificate in PEM form", ca)
		}
	}
	if cert == "" {
		return c, nil
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		return &pair, err
	}
	_, err := c.GetClientCertificate(nil)
	return c, err
}

// urlError is err without what is secret in u.
func urlError(u *url.URL, err error) error {
	text := strings.TrimPrefix(err.Error(), "redis: ")
	password, _ := u.User.Password()
	for _, secret := range []string{password, u.Query().Get("password")} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
		}
	}
	return fmt.Errorf("redis URL: %s", text)
}

// In all of these: nothing is retried, since a script that was charged may not be charged again when only its answer
// was lost; and requests go one batch at a time, so that one Redis needs few connections. What go-redis asks for itself,
// such as a Sentinel for the primary, may take longer than a trip; what a caller waits for is bounded by its context.

func single(c *redis.Options, o Options) *redis.Client {
	c.MaxRetries, c.DialerRetries = -1, 1
	c.DialTimeout, c.ReadTimeout, c.WriteTimeout, c.PoolTimeout = dialTimeout, linkTimeout, linkTimeout, linkTimeout
	c.ContextTimeoutEnabled, c.DisableIdentity = true, true
	c.PoolSize, c.PipelinePoolSize = cmp.Or(c.PoolSize, o.pool, 4), -1
	c.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	c.TLSConfig = tlsConfig(c.TLSConfig, o.TLS)
	c.Dialer = dialer(o, c.TLSConfig)
	return redis.NewClient(c)
}

func sentinel(c *redis.FailoverOptions, o Options) *redis.Client {
	c.MaxRetries, c.DialerRetries = -1, 1
	c.DialTimeout, c.ReadTimeout, c.WriteTimeout, c.PoolTimeout = dialTimeout, linkTimeout, linkTimeout, linkTimeout
	c.ContextTimeoutEnabled, c.DisableIdentity = true, true
	c.PoolSize, c.PipelinePoolSize = cmp.Or(c.PoolSize, o.pool, 4), -1
	c.TLSConfig = tlsConfig(c.TLSConfig, o.TLS)
	c.Dialer = dialer(o, c.TLSConfig)
	return redis.NewFailoverClient(c)
}

func clusterClient(c *redis.ClusterOptions, o Options) *redis.ClusterClient {
	c.MaxRetries, c.DialerRetries = -1, 1
	c.MinRetryBackoff, c.MaxRetryBackoff = -1, -1
	c.DialTimeout, c.ReadTimeout, c.WriteTimeout, c.PoolTimeout = dialTimeout, linkTimeout, linkTimeout, linkTimeout
	c.ContextTimeoutEnabled, c.DisableIdentity, c.DisableRoutingPolicies = true, true, true
	c.PoolSize, c.PipelinePoolSize = cmp.Or(c.PoolSize, o.pool, 32), -1
	c.ClusterStateReloadInterval = 2 * time.Second
	c.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	c.TLSConfig = tlsConfig(c.TLSConfig, o.TLS)
	c.Dialer = dialer(o, c.TLSConfig)
	return redis.NewClusterClient(c)
}

// tlsConfig is the caller's when the URL asks for TLS, for the URL's server name.
func tlsConfig(fromURL, own *tls.Config) *tls.Config {
	if fromURL == nil || own == nil {
		return fromURL
	}
	c := own.Clone()
	c.ServerName = cmp.Or(c.ServerName, fromURL.ServerName)
	c.InsecureSkipVerify = c.InsecureSkipVerify || fromURL.InsecureSkipVerify
	return c
}

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/legation/legation/auth"
	"github.com/legation/legation/examples"
	"github.com/spf13/cobra"
)

func tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Print a signed test token; or tell why one is good, or not (verify)",
		Long: `Print a signed JSON Web Token for trying a policy out. Without --key it is signed with the quickstart's test key,
which is public: never accept it outside examples/quickstart.`,
		Example: `  legation token --sub alice
  legation token --sub bob --claim plan=gold --claim 'roles=["admin"]' --ttl 5m
  legation token --key my-key.pem --issuer https://id.example.com/ --audience orders --sub alice`,
		Args: nothing,
		RunE: func(c *cobra.Command, _ []string) error {
			token, err := signToken(c)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), token)
			return err
		},
	}
	f := c.Flags()
	f.String("sub", "", "who the token is for (claim sub)")
	f.StringArray("claim", nil, "a further claim, NAME=VALUE; VALUE is read as JSON where it is JSON")
	f.Duration("ttl", time.Hour, "how long the token is good")
	f.String("issuer", examples.Issuer, "claim iss")
	f.String("audience", examples.Audience, "claim aud")
	f.String("key", "", "private key, PEM or JWK; default the quickstart's test key")
	f.String("kid", "", "key id for the token's header")
	c.AddCommand(tokenVerifyCommand())
	return c
}

func signToken(c *cobra.Command) (string, error) {
	f := c.Flags()
	text := func(name string) string {
		value, _ := f.GetString(name)
		return value
	}
	if text("sub") == "" {
		return "", usage{fmt.Errorf("say who the token is for with --sub")}
	}
	key, kid := examples.TestKey(), examples.TestKeyID
	if path := text("key"); path != "" {
		var err error
		if key, err = os.ReadFile(path); err != nil {
			return "", usage{fmt.Errorf("--key: %w", err)}
		}
		kid = ""
	}
	ttl, _ := f.GetDuration("ttl")
	now := time.Now()
	claims := map[string]any{
		"iss": text("issuer"), "aud": text("audience"), "sub": text("sub"),
		"iat": now.Unix(), "exp": now.Add(ttl).Unix(),
	}
	pairs, _ := f.GetStringArray("claim")
	more, err := parseClaims(pairs)
	if err != nil {
		return "", err
	}
	maps.Copy(claims, more)
	return auth.Sign(key, claims, cmp.Or(text("kid"), kid))
}

func parseClaims(pairs []string) (map[string]any, error) {
	claims := map[string]any{}
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, usage{fmt.Errorf("--claim %s: want NAME=VALUE", pair)}
		}
		claims[name] = value
		if json.Valid([]byte(value)) {
			claims[name] = json.RawMessage(value) // as it stands: large numbers stay exact
		}
	}
	return claims, nil
}

package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Of asking the provider.
const (
	askTimeout      = 5 * time.Second
	exchangeTimeout = 15 * time.Second // of all that a login asks: tokens, keys, userinfo, records
	maxAnswer       = 1 << 20          // bytes
	maxText         = 16 << 10         // of a token, in bytes
)

// errUnreachable says that the provider didn't answer, or only that it can't.
var errUnreachable = errors.New("the provider can't be reached")

// refusedError is a provider's no.
type refusedError struct{ code string }

func (e *refusedError) Error() string { return "the provider refused: " + e.code }

// tokens are what the token endpoint gives.
type tokens struct {
	id, access, refresh string
	lasts               time.Duration // 0 = not told
}

// askTokens asks the token endpoint, as this client.
func (f *Flow) askTokens(ctx context.Context, p *provider, form url.Values) (tokens, error) {
	if p.PostsSecret {
		form.Set("client_id", f.config.ClientID)
		form.Set("client_secret", string(f.config.Secret))
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.Token, strings.NewReader(form.Encode()))
	if err != nil {
		return tokens{}, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if !p.PostsSecret {
		r.SetBasicAuth(url.QueryEscape(f.config.ClientID), url.QueryEscape(string(f.config.Secret)))
	}
	status, answer, err := f.ask(r)
	if err != nil {
		return tokens{}, err
	}
	if status != http.StatusOK {
		return tokens{}, refusal(status, answer)
	}
	t := tokens{id: text(answer, "id_token"), access: text(answer, "access_token"), refresh: text(answer, "refresh_token")}
	if max(len(t.id), len(t.access), len(t.refresh)) > maxText {
		return tokens{}, errors.New("a token is too long")
	}
	if !strings.EqualFold(text(answer, "token_type"), "bearer") || t.access == "" {
		return tokens{}, errors.New("the provider gave no bearer token")
	}
	if n, ok := number(answer["expires_in"]); ok && n > 0 {
		t.lasts = time.Duration(min(n, maxSeconds)) * time.Second
	}
	return t, nil
}

// refusal reads an answer that is no success. What isn't an error of OAuth is taken for a broken provider.
func refusal(status int, answer map[string]any) error {
	if code := text(answer, "error"); code != "" && status >= 400 && status < 500 && status != http.StatusTooManyRequests {
		return &refusedError{known(code)}
	}
	return fmt.Errorf("%w: it answered %d", errUnreachable, status)
}

// addUserInfo adds what the userinfo endpoint tells of the same subject. The ID token is signed, so its claims stay.
func (f *Flow) addUserInfo(ctx context.Context, p *provider, t tokens, claims map[string]any) (map[string]any, error) {
	if !f.config.UserInfo || p.UserInfo == "" {
		return claims, nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.UserInfo, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+t.access)
	status, answer, err := f.ask(r)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%w: userinfo answered %d", errUnreachable, status)
	}
	if answer["sub"] != claims["sub"] {
		return nil, errors.New("userinfo tells of another subject")
	}
	for name, value := range claims {
		answer[name] = value
	}
	return answer, nil
}

// ask sends a request to the provider and reads the JSON object of its answer; an answer of another kind is an empty one.
func (f *Flow) ask(r *http.Request) (status int, answer map[string]any, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	r = r.WithContext(ctx)
	r.Header.Set("Accept", "application/json")
	res, err := f.client.Do(r)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errUnreachable, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errUnreachable, err)
	}
	if len(body) > maxAnswer {
		return 0, nil, errors.New("the provider's answer is too long")
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind != "application/json" {
		return res.StatusCode, map[string]any{}, nil
	}
	answer, err = readObject(body)
	return res.StatusCode, answer, err
}

// readObject reads one JSON object. Names are told apart by their case, and numbers stay as they are written.
func readObject(b []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var o map[string]any
	if err := d.Decode(&o); err != nil || o == nil {
		return nil, errors.New("not one JSON object")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("not one JSON object")
	}
	return o, nil
}

func text(o map[string]any, name string) string {
	s, _ := o[name].(string)
	return s
}

const maxSeconds = 1 << 31

// number reads a count of seconds, which some providers write as text.
func number(v any) (int64, bool) {
	switch v := v.(type) {
	case string:
		return number(json.Number(v))
	case json.Number:
		n, err := v.Float64()
		return int64(n), err == nil && n >= 0 && n < 1<<40
	}
	return 0, false
}

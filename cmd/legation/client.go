package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/legation/legation/app"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// clientFlags adds the flags of the verbs that ask a running process.
func clientFlags(f *pflag.FlagSet) {
	f.String("server", "http://"+app.DefaultAdmin, "the process's admin address")
	tokenFlag(f)
}

// clientsFlags adds those of the verbs that ask several processes.
func clientsFlags(f *pflag.FlagSet) {
	f.StringSlice("server", []string{"http://" + app.DefaultAdmin}, "the process's admin address; again for each other one: what they tell is added up")
	tokenFlag(f)
}

func tokenFlag(f *pflag.FlagSet) { f.String("token-file", "", "file with the admin token") }

// servers is the URLs of the processes to ask.
func (s settings) servers() []string {
	var all []string
	for _, one := range s.list("server") {
		if !strings.Contains(one, "://") {
			one = "http://" + one // as --admin-address has it
		}
		all = append(all, strings.TrimSuffix(one, "/"))
	}
	return all
}

// server is the URL of the one process to ask.
func (s settings) server() (string, error) {
	all := s.servers()
	if len(all) != 1 {
		return "", usage{fmt.Errorf("--server: this verb asks one process, not %d", len(all))}
	}
	return all[0], nil
}

// patience is how long a process may take to answer.
const patience = 10 * time.Second

// ask gets an answer of the admin API of the one process.
func (s settings) ask(ctx context.Context, path string, into any) error {
	server, err := s.server()
	if err != nil {
		return err
	}
	return s.call(ctx, http.MethodGet, server+path, nil, into)
}

// tell sends the one process JSON, and gets its answer.
func (s settings) tell(ctx context.Context, path string, what, into any) error {
	server, err := s.server()
	if err != nil {
		return err
	}
	return s.call(ctx, http.MethodPost, server+path, what, into)
}

// remove takes something away at the one process, and gets its answer.
func (s settings) remove(ctx context.Context, path string, into any) error {
	server, err := s.server()
	if err != nil {
		return err
	}
	return s.call(ctx, http.MethodDelete, server+path, nil, into)
}

// asking is whom a verb asks, and whether it is to show the answer as JSON.
func asking(c *cobra.Command) (s settings, asJSON bool, err error) {
	if asJSON, err = jsonOutput(c); err != nil {
		return s, false, err
	}
	s, err = newSettings(c.Flags())
	return s, asJSON, err
}

// answered runs a verb whose answer get has, as JSON or as show has it for people.
func answered[T any](c *cobra.Command, get func(settings) (T, error), show func(T) error) error {
	s, asJSON, err := asking(c)
	if err != nil {
		return err
	}
	answer, err := get(s)
	switch {
	case err != nil:
		return err
	case asJSON:
		return writeJSON(c.OutOrStdout(), answer)
	}
	return show(answer)
}

// askAll asks all processes at once. Those that don't answer are told in the error, beside what the others answered.
func askAll[T any](ctx context.Context, s settings, path string) ([]T, error) {
	servers := s.servers()
	answers, errs := make([]T, len(servers)), make([]error, len(servers))
	var all sync.WaitGroup
	for i, server := range servers {
		all.Go(func() { errs[i] = s.call(ctx, http.MethodGet, server+path, nil, &answers[i]) })
	}
	all.Wait()
	var good []T
	for i := range answers {
		if errs[i] == nil {
			good = append(good, answers[i])
		}
	}
	return good, errors.Join(errs...)
}

// call has one request answered; what is sent as JSON unless it is nil.
func (s settings) call(ctx context.Context, method, url string, what, into any) error {
	if _, bounded := ctx.Deadline(); !bounded {
		within, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		ctx = within
	}
	var body io.Reader
	if what != nil {
		text, err := json.Marshal(what)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return usage{fmt.Errorf("--server: %w", err)}
	}
	if what != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if file := s.v.GetString("token-file"); file != "" {
		token, err := os.ReadFile(file)
		if err != nil {
			return usage{fmt.Errorf("--token-file: %w", err)}
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("%w (is legation running? say where with --server)", err)
	}
	defer a.Body.Close()
	return readAnswer(url, a, into)
}

// refusedError is an answer other than 200.
type refusedError struct {
	url, status string
	code        int
	body        []byte
}

func (r *refusedError) Error() string {
	var told struct{ Error string }
	_ = json.Unmarshal(r.body, &told)
	return fmt.Sprintf("%s: %s: %s", r.url, r.status, cmp.Or(told.Error, strings.TrimSpace(string(r.body))))
}

// readAnswer reads a 200, and makes an error of everything else.
func readAnswer(url string, a *http.Response, into any) error {
	body, err := io.ReadAll(io.LimitReader(a.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("read %s: %w", url, err)
	}
	if a.StatusCode != http.StatusOK {
		return &refusedError{url, a.Status, a.StatusCode, body}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%s: not what legation answers: %w", url, err)
	}
	return nil
}

// suggest asks the process for what may stand in a command line; nothing when it doesn't answer at once.
func suggest[T any](path string, names func(T) []string) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(c.Context(), time.Second)
		defer cancel()
		s, err := newSettings(c.Flags())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		answers, _ := askAll[T](ctx, s, path)
		var all []string
		for _, one := range answers {
			all = append(all, names(one)...)
		}
		slices.Sort(all)
		return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
	}
}

package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Redis is a redis-server without persistence.
type Redis struct {
	*Process
	Port int
	rig  *Rig
	args []string
}

// Redis starts a redis-server and waits until it answers.
func (r *Rig) Redis(ctx context.Context, args ...string) (*Redis, error) {
	port, err := Port()
	if err != nil {
		return nil, err
	}
	dir, err := r.Folder()
	if err != nil {
		return nil, err
	}
	s := &Redis{Port: port, rig: r}
	s.args = append([]string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--save", "", "--appendonly", "no", "--dir", dir}, args...)
	return s, s.Restart(ctx)
}

// Restart starts a server that was killed, at the same address and without its data.
func (s *Redis) Restart(ctx context.Context) (err error) {
	if s.Process, err = s.rig.Start(s.rig.o.Redis, s.args...); err != nil {
		return err
	}
	err = Until(ctx, 20*time.Second, "redis-server to answer", func() error {
		_, err := s.Do("PING")
		if err != nil && strings.HasPrefix(err.Error(), "NOAUTH") {
			return nil // it asks for a password, so it runs
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.Said())
	}
	return nil
}

// Address is host and port.
func (s *Redis) Address() string { return Local(s.Port) }

// URL is what --redis takes.
func (s *Redis) URL() string { return "redis://" + s.Address() }

// Pause keeps the server from running until it goes on.
func (s *Redis) Pause() error { return s.Signal(syscall.SIGSTOP) }

// Continue ends a pause.
func (s *Redis) Continue() error { return s.Signal(syscall.SIGCONT) }

// Do runs one command over a connection of its own and gives the answer as text, the elements of a list by lines.
func (s *Redis) Do(command ...string) (string, error) {
	c, err := net.DialTimeout("tcp", s.Address(), time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	q := fmt.Appendf(nil, "*%d\r\n", len(command))
	for _, word := range command {
		q = fmt.Appendf(q, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := c.Write(q); err != nil {
		return "", err
	}
	return reply(bufio.NewReader(c))
}

// reply reads one answer of Redis' protocol.
func reply(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, rest := line[0], strings.TrimRight(line[1:], "\r\n")
	n, _ := strconv.Atoi(rest)
	switch {
	case kind == '-':
		return "", errors.New(rest)
	case kind == '+' || kind == ':':
		return rest, nil
	case n < 0:
		return "", nil
	case kind == '$':
		text := make([]byte, n+2)
		_, err := io.ReadFull(in, text)
		return string(text[:n]), err
	}
	var all []string
	for range n {
		one, err := reply(in)
		if err != nil {
			return "", err
		}
		all = append(all, one)
	}
	return strings.Join(all, "\n"), nil
}

// Info is a number that INFO tells.
func (s *Redis) Info(name string) (int64, error) {
	text, err := s.Do("INFO", "everything")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, fmt.Errorf("INFO has no %s", name)
}

// Tool runs a program that comes with redis-server, such as redis-benchmark, and gives what it prints.
func (s *Redis) Tool(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, s.rig.tool(name), args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return string(out), nil
}

// Sentinel starts a Redis Sentinel with a configuration file, which it writes to.
func (r *Rig) Sentinel(ctx context.Context, port int, config string) (*Redis, error) {
	s := &Redis{Port: port, rig: r, args: []string{config, "--sentinel", "--bind", "127.0.0.1", "--port", strconv.Itoa(port)}}
	return s, s.Restart(ctx)
}

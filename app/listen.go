package app

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// listen opens a port; one that is taken is told with the setting that moves it.
func listen(what, setting, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, taken(what, address, setting)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return l, nil
}

func taken(what, address, cure string) error {
	return fmt.Errorf("%s: %s is taken by another process: stop that one, or choose another port with %s", what, address, cure)
}

// free tells whether an address can be listened on right now.
func free(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return !errors.Is(err, syscall.EADDRINUSE)
	}
	return l.Close() == nil
}

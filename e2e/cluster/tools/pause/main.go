// Pause holds a Pod's namespaces open, and proves that names resolve inside a Pod.
//
//	pause                  waits for a signal to stop; reaps children where Pods share a process namespace
//	pause resolve NAME     ends with 0 as soon as NAME resolves, with 1 when it still does not after a minute
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "resolve" {
		os.Exit(resolve(os.Args[2]))
	}
	pause()
}

func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
}

func resolve(name string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		addresses, err := net.DefaultResolver.LookupHost(ctx, name)
		if err == nil {
			fmt.Println(name, addresses)
			return 0
		}
		fmt.Println(err)
		select {
		case <-ctx.Done():
			return 1
		case <-time.After(200 * time.Millisecond):
		}
	}
}

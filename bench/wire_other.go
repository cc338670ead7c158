//go:build !linux

package main

import "errors"

func sent(int) (map[int]float64, error) {
	return nil, errors.New("TCP connections are read on Linux only")
}

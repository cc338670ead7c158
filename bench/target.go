package main

import "fmt"

// values are the medians of one measure; the native one is that of the better variant. Zero means not measured.
type values struct {
	Native   float64 `json:"native,omitempty"`
	Syncline float64 `json:"syncline,omitempty"`
	Floor    float64 `json:"floor,omitempty"`
}

// ratio is how many times as much the native side takes.
func (v values) ratio() float64 { return quotient(v.Native, v.Syncline) }

// share is how near Syncline comes to the decode floor; 1 would be there.
func (v values) share() float64 { return quotient(v.Floor, v.Syncline) }

func quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// target is what a measure has to reach. The zero target is none.
type target struct {
	text string
	met  func(values) bool
}

func faster(ratio float64) target {
	return target{
		text: fmt.Sprintf("ratio ≥ %g", ratio),
		met:  func(v values) bool { return v.ratio() >= ratio },
	}
}

func nearFloor(share float64) target {
	return target{
		text: fmt.Sprintf("≥ %g of floor, ratio ≥ 1", share),
		met:  func(v values) bool { return v.share() >= share && v.ratio() >= 1 },
	}
}

// within allows Syncline to take so many seconds more.
func within(extra float64, text string) target {
	return target{text: text, met: func(v values) bool { return v.Syncline <= v.Native+extra }}
}

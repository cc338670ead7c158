// Package demo replicates a live database on servers of its own, before a user's eyes: a primary that is written to all
// the time, replicas, a kill, and at the end the proof that every row of every table is equal. Whatever it starts or
// writes is gone when Run returns, however it returns.
package demo

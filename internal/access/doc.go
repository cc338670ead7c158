// Package access decides who may call what. A method that it does not know is refused, a replicator reads nothing beyond its
// grants by any method, and a follower belongs to the principal that it was made by. It is pure: principals come as values, and
// requests as messages.
package access

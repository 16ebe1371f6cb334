//go:build crds

// No part of the program: names the types that controller-gen reads, so that `go mod tidy` keeps their module.
package main

import _ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"

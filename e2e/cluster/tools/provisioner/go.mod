module holdfast.dev/e2e/cluster/tools/provisioner

go 1.24.0

//! The KVM machine: chunked guest memory, vCPUs, boot, ACPI, and the state a fork carries over.

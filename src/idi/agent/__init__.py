"""What stands beside Envoy in a pod: keeps it running, judges the module, tells control, answers the kubelet."""

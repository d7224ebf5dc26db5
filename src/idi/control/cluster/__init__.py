"""What is there on Kubernetes alone: releases, the gateway's pods, the door of agents."""

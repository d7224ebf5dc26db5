"""The requirements that tests are proof of, by id; a marker with another id is an error.

The table in docs/requirements.md is made from these and from the markers, so it can neither name a test that does
not exist nor keep a requirement that nothing proves without saying so.
"""

REQUIREMENTS = {
    "G1": "One entry point: routing, load balancing, rate limit per client, authentication",
    "G2": "Internal calls through sidecars under the same policies, or through the gateway",
    "D1": "Endpoints are found, registered and removed by themselves; horizontal scaling",
    "B1": "Asynchronous messages and event-driven workflows between modules, any language",
    "K1": "Kubernetes: one namespace per environment, separate pods per module",
    "K2": "Horizontal pod autoscaling for the heavy modules",
    "K3": "Resource quotas; node pools by affinity and taints",
    "K4": "Managed clusters: value profiles, preflight",
    "C1": "CI/CD for every module: build, scan, test, deploy, health check, rollback",
    "C2": "Monitoring after a deploy, automatic rollback on critical thresholds",
    "C3": "Ledger of builds and deployments: first-attempt success, ratios, causes",
    "S1": "Configuration: environment variables, secrets, deployment profiles",
    "S2": "Secrets encrypted with keys that the customer manages and can rotate",
    "S3": "OAuth2/OIDC at the gateway",
    "S4": "Mutual TLS on all traffic from service to service",
    "S5": "Every deployment action audit-logged and linked to EAT, tamper-evident",
    "S6": "Operators have identities and roles per environment",
    "O1": "Metrics and dashboards",
    "O2": "Logs, central and searchable",
    "O3": "Traces across gateway, modules and events",
    "O4": "Alerts on the burn of service level objectives",
    "T1": "Smoke tests: discovery, gateway routing",
    "T2": "Load tests: concurrent calls over all modules",
    "T3": "Failure injection, always undone",
    "T4": "Security tests: unauthorised access, leakage of secrets",
    "R1": "Day 2: backup, restore, upgrade, retention",
}

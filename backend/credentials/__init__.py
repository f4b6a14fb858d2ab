"""Registry credentials, as the user: config.json, the credential-helper protocol, the keyring."""

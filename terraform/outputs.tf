output "user_pool_id" {
  description = "COGNITO_USER_POOL_ID of the verifier."
  value       = aws_cognito_user_pool.this.id
}

output "issuer" {
  description = "The tokens' `iss`, and the authorization server of the API's resource metadata."
  value       = local.issuer
}

output "token_url" {
  description = "Where clients fetch tokens."
  value       = local.token_url
}

output "client_ids" {
  description = "Client ids by name; joined by commas, COGNITO_CLIENT_IDS of the verifier."
  value       = { for name, client in aws_cognito_user_pool_client.machine : name => client.id }
}

output "client_secrets" {
  description = "Client secrets by name: for the first hand-over, where Secrets Manager cannot be read."
  value       = { for name, client in aws_cognito_user_pool_client.machine : name => client.client_secret }
  sensitive   = true
}

output "secret_arns" {
  description = "Where each client's credentials are kept; grant secretsmanager:GetSecretValue on one."
  value       = { for name, secret in aws_secretsmanager_secret.machine : name => secret.arn }
}

output "m2m_config" {
  description = "The verifier's configuration file: `terraform output -raw m2m_config > m2m.yaml`. Policies are to be added."
  value = yamlencode({
    issuers = [{
      name    = var.name
      cognito = { region = local.region, user_pool_id = aws_cognito_user_pool.this.id }
      clients = [for client in aws_cognito_user_pool_client.machine : client.id]
    }]
    scope_prefix = "${aws_cognito_resource_server.api.identifier}/"
  })
}

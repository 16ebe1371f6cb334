# A pool of machines: nobody signs up, nobody signs in.
resource "aws_cognito_user_pool" "this" {
  name                = var.name
  deletion_protection = "ACTIVE"

  admin_create_user_config {
    allow_admin_create_user_only = true
  }
}

resource "aws_cognito_user_pool_domain" "this" {
  domain       = var.domain_prefix
  user_pool_id = aws_cognito_user_pool.this.id
}

resource "aws_cognito_resource_server" "api" {
  identifier   = var.resource_server
  name         = "${var.name}-api"
  user_pool_id = aws_cognito_user_pool.this.id

  dynamic "scope" {
    for_each = var.scopes

    content {
      scope_name        = scope.key
      scope_description = scope.value
    }
  }
}

resource "aws_cognito_user_pool_client" "machine" {
  for_each = var.clients

  name         = "${var.name}-${each.key}"
  user_pool_id = aws_cognito_user_pool.this.id

  generate_secret                      = true
  allowed_oauth_flows_user_pool_client = true
  allowed_oauth_flows                  = ["client_credentials"]
  allowed_oauth_scopes                 = [for scope in each.value : "${aws_cognito_resource_server.api.identifier}/${scope}"]

  # An empty list would mean Cognito's defaults, password sign-in and refresh tokens among them. This one needs Lambda
  # triggers that the pool does not have, so nobody signs in; and no flow that is left gives out a refresh token.
  explicit_auth_flows = ["ALLOW_CUSTOM_AUTH"]

  access_token_validity   = 1
  enable_token_revocation = true
  token_validity_units {
    access_token = "hours"
  }

  prevent_user_existence_errors = "ENABLED"

  lifecycle {
    precondition {
      condition     = length(setsubtract(each.value, keys(var.scopes))) == 0
      error_message = "${each.key} asks for a scope that var.scopes has not."
    }
  }
}

# What an agent's owner is given: the right to read this one secret.
resource "aws_secretsmanager_secret" "machine" {
  for_each = var.clients

  name        = "${var.name}/${each.key}"
  description = "OAuth client credentials of ${each.key} for ${var.resource_server}"
  kms_key_id  = var.kms_key_id
}

resource "aws_secretsmanager_secret_version" "machine" {
  for_each = var.clients

  secret_id = aws_secretsmanager_secret.machine[each.key].id
  secret_string = jsonencode({
    client_id     = aws_cognito_user_pool_client.machine[each.key].id
    client_secret = aws_cognito_user_pool_client.machine[each.key].client_secret
    token_url     = local.token_url
    scope         = join(" ", aws_cognito_user_pool_client.machine[each.key].allowed_oauth_scopes)
  })

  # A rotation (docs/secret-rotation.md) stores the new secret itself: an apply after it must not bring back the old one.
  lifecycle {
    ignore_changes = [secret_string]
  }
}

locals {
  region    = split("_", aws_cognito_user_pool.this.id)[0]
  issuer    = "https://cognito-idp.${local.region}.amazonaws.com/${aws_cognito_user_pool.this.id}"
  token_url = "https://${aws_cognito_user_pool_domain.this.domain}.auth.${local.region}.amazoncognito.com/oauth2/token"
}

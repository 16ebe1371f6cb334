variable "name" {
  description = "Name of the user pool, and prefix of the clients' and secrets' names."
  type        = string
  default     = "m2m"
}

variable "domain_prefix" {
  description = "First label of the token endpoint, https://PREFIX.auth.REGION.amazoncognito.com: unique in the region."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$", var.domain_prefix)) && !can(regex("aws|amazon|cognito", var.domain_prefix))
    error_message = "Lower-case letters, digits and dashes; Cognito refuses aws, amazon and cognito inside."
  }
}

variable "resource_server" {
  description = "Identifier of the API. Scopes are IDENTIFIER/read and so on: the verifier's scope_prefix is IDENTIFIER/."
  type        = string
  default     = "https://api.lab.informationcart.com"

  validation {
    condition     = !endswith(var.resource_server, "/")
    error_message = "Without a slash at the end: Cognito puts one between the identifier and the scope."
  }
}

variable "scopes" {
  description = "What a client may be granted, each with the words that Cognito shows for it."
  type        = map(string)
  default = {
    read  = "Read"
    write = "Create, change and delete"
    admin = "Administer"
  }
}

variable "clients" {
  description = "Machines that fetch tokens, each with the scopes that it may ask for."
  type        = map(set(string))
  default = {
    etl        = ["read", "write"]
    reporting  = ["read"]
    monitoring = ["read"]
    agent      = ["read"]
  }

  validation {
    condition     = alltrue([for scopes in values(var.clients) : length(scopes) > 0])
    error_message = "A client without scopes would be granted all that it is allowed: name at least one."
  }
}

variable "kms_key_id" {
  description = "KMS key for the secrets; null is the account's aws/secretsmanager key."
  type        = string
  default     = null
}

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }

  # The state holds the client secrets: keep it in an encrypted, access-controlled backend (README.md), never in a repository.
}

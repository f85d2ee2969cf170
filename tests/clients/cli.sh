#!/usr/bin/env bash
# The AWS CLI: a queue's life from the command line. Usage: cli.sh ENDPOINT, with AWS set to the CLI's command.
set -euo pipefail

sqs() { $AWS --endpoint-url "$1" --region us-east-1 --output text sqs "${@:2}"; }
endpoint=$1
expect() { [ "$2" = "$3" ] || { echo "$1: expected '$3', got '$2'"; exit 1; }; }

url=$(sqs "$endpoint" create-queue --queue-name cli --attributes VisibilityTimeout=20)
expect url "$url" "$endpoint/000000000000/cli"
expect list "$(sqs "$endpoint" list-queues --queue-name-prefix cli --query 'QueueUrls')" "$url"
id=$(sqs "$endpoint" send-message --queue-url "$url" --message-body "from the shell" \
    --message-attributes 'Kind={DataType=String,StringValue=plain}' --query MessageId)
expect body "$(sqs "$endpoint" receive-message --queue-url "$url" --visibility-timeout 0 --query 'Messages[0].Body')" "from the shell"
received=$(sqs "$endpoint" receive-message --queue-url "$url" --query 'Messages[0].[MessageId,ReceiptHandle]')
expect id "${received%%$'\t'*}" "$id"
sqs "$endpoint" delete-message --queue-url "$url" --receipt-handle "${received##*$'\t'}"
expect count "$(sqs "$endpoint" get-queue-attributes --queue-url "$url" --attribute-names All \
    --query 'Attributes.[ApproximateNumberOfMessages,ApproximateNumberOfMessagesNotVisible,VisibilityTimeout]')" $'0\t0\t20'
sqs "$endpoint" tag-queue --queue-url "$url" --tags team=mail
expect tags "$(sqs "$endpoint" list-queue-tags --queue-url "$url" --query Tags.team)" mail
sqs "$endpoint" purge-queue --queue-url "$url"
sqs "$endpoint" delete-queue --queue-url "$url"
refused=$(sqs "$endpoint" get-queue-url --queue-name cli 2>&1 || true)
case $refused in *NonExistentQueue*) ;; *) echo "$refused"; exit 1 ;; esac
echo "fine"

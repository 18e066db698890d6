#!/usr/bin/env bash
# Say on Kafka that a dataset lies in the object store, with nothing but kcat (Debian: apt install kcat):
#
#   publish_event.sh [-i ID] [-t TRACEPARENT] BUCKET KEY
#
# Without options the event is bare JSON, and what it does not say has defaults. -i gives it an id (the same id from the
# same source is the same announcement, however often it is sent), -t lets the job go on with the trace of whoever asks.
# TUNESTREAM_KAFKA names the broker; KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_USERNAME, KAFKA_PASSWORD and
# KAFKA_CA_FILE say how to log in. KAFKA_TOPIC is dataset.uploaded unless it says otherwise.
set -euo pipefail

usage() {
    sed -n '4s/^# *//p' "$0" >&2
    exit 2
}

headers=()
while getopts i:t: option; do
    case $option in
        i) headers+=(-H ce_specversion=1.0 -H ce_type=tunestream.dataset.uploaded.v1 -H ce_source=/examples/kcat -H "ce_id=$OPTARG") ;;
        t) headers+=(-H "traceparent=$OPTARG") ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -eq 2 ] || usage

# a file, not arguments: everybody on the machine can read those
settings() {
    echo "security.protocol=${KAFKA_SECURITY_PROTOCOL:-PLAINTEXT}"
    case ${KAFKA_SECURITY_PROTOCOL:-PLAINTEXT} in SASL_*)
        echo "sasl.mechanism=${KAFKA_SASL_MECHANISM:-SCRAM-SHA-512}"
        echo "sasl.username=$KAFKA_USERNAME"
        echo "sasl.password=$KAFKA_PASSWORD"
    esac
    case ${KAFKA_SECURITY_PROTOCOL:-PLAINTEXT} in *SSL)
        [ -z "${KAFKA_CA_FILE:-}" ] || echo "ssl.ca.location=$KAFKA_CA_FILE"
    esac
}

quoted() { # as JSON
    printf '"%s"' "$(sed 's/[\\"]/\\&/g' <<<"$1")"
}

event="{\"dataset\": {\"bucket\": $(quoted "$1"), \"key\": $(quoted "$2")}}"
kcat -q -P -F <(settings) -b "${TUNESTREAM_KAFKA:-127.0.0.1:9092}" -t "${KAFKA_TOPIC:-dataset.uploaded}" \
    -X acks=all -X message.timeout.ms=15000 ${headers[@]+"${headers[@]}"} <<<"$event"
echo "$event"

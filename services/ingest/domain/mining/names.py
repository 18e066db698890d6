"""The usual names of columns, and the usual words for who speaks."""

from __future__ import annotations

from services.ingest.domain.mining.records import key_of
from shared.events import Target
from shared.events.source import Role


def _keys(text: str) -> tuple[str, ...]:
    return tuple(key_of(name) for name in text.split())


# The order matters: the first of them that a file has is taken.
TARGETS: dict[Target, tuple[str, ...]] = {
    "system": _keys("system system_prompt system_message system_instruction"),
    "user": _keys(
        "customer_message user_message client_message customer_question user_question customer_query user_query "
        "customer_inquiry customer_request customer_text user_input user_prompt user_text question query instruction "
        "prompt inputs inquiry enquiry user customer request human input ticket_description issue_description "
        "problem_description description issue problem ticket_text "
        "ticket_body frage kundenfrage kundennachricht anfrage "
        "pregunta domanda"
    ),
    "context": _keys("input context passage background"),
    "assistant": _keys(
        "agent_response agent_reply agent_answer agent_message support_response support_reply support_answer "
        "assistant_response assistant_message assistant_reply ideal_response ideal_answer expected_output "
        "expected_answer expected_response model_response bot_response bot_reply gpt_response answer response reply "
        "output targets completion assistant resolution solution agent antwort antwort_text respuesta reponse risposta"
    ),
    "chosen": _keys(
        "chosen chosen_response preferred_response preferred_completion accepted better better_response winning"
    ),
    "rejected": _keys(
        "rejected rejected_response non_preferred_response non_preferred_completion dispreferred dispreferred_response "
        "worse worse_response losing"
    ),
    "answer_a": _keys("response_a answer_a completion_a output_a response_1 answer_1 completion_1 output_1 response_0"),
    "answer_b": _keys("response_b answer_b completion_b output_b response_2 answer_2 completion_2 output_2 response_1"),
    "preferred": _keys("preferred preference winner choice annotator_choice human_preference label better_answer best"),
    "messages": _keys(
        "messages conversations conversation dialogue dialog turns chat comments thread transcript contents"
    ),
    "role": _keys(
        "role sender_role sender_type author_role author_type speaker_role participant_type sender from author speaker "
        "direction sent_by"
    ),
    "content": _keys("content message message_text message_body text body value comment utterance"),
}
GROUPS = _keys(
    "conversation_id ticket_id thread_id chat_id dialogue_id dialog_id session_id case_id conversation_number "
    "ticket_number case_number ticket_no ticket case conv_id conversationid ticket_key"
)
ORDERS = _keys(
    "created_at timestamp sent_at date_created created created_on created_date message_index turn_index turn_id turn "
    "message_number sequence seq position step datetime time date"
)
TEXTS = _keys("text document content body message sentence utterance email")
"""What is labelled, where a file has no question and no answer but a label."""
LABELS = _keys("label category intent class document_type topic sentiment target tag")

_SPEAKERS: dict[Role, str] = {
    "user": "user human customer client end_user requester visitor contact caller inbound incoming in prompter buyer "
    "guest consumer question kunde kundin cliente",
    "assistant": "assistant gpt bot agent support ai model chatgpt chatbot operator staff employee rep representative "
    "outbound outgoing out helper advisor support_agent support_team helpdesk help_desk answer mitarbeiter agente bing "
    "bard function_call",
    "system": "system developer",
    "tool": "tool function observation function_response tool_response ipython",
}
ROLES: dict[str, Role] = {key: role for role, words in _SPEAKERS.items() for key in _keys(words)}
"""Who speaks, by the key of the word."""

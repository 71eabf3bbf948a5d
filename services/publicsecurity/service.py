"""Public security: answers to questions, seals, vehicles, permits."""

from pathlib import Path

from hutong.api.publicsecurity.v1 import service_pb2
from services.kit.department import Room

ROOM = Room("publicsecurity", service_pb2.DESCRIPTOR.services_by_name["PublicSecurityService"], Path(__file__).parent)

"""Commerce: who is registered, and how (market regulation)."""

from pathlib import Path

from hutong.api.commerce.v1 import service_pb2
from services.kit.department import Room

ROOM = Room("commerce", service_pb2.DESCRIPTOR.services_by_name["CommerceService"], Path(__file__).parent)

"""Customs: operators, declarations, clearance."""

from pathlib import Path

from hutong.api.customs.v1 import service_pb2
from services.kit.department import Room

ROOM = Room("customs", service_pb2.DESCRIPTOR.services_by_name["CustomsService"], Path(__file__).parent)

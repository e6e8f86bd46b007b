"""What refusals advise."""

AS_LORA = "`peftlab convert --to lora` makes a LoRA of it, which goes everywhere"

"""Model types other than plain text models: wrappers, those without RoPE, those not supported."""

from __future__ import annotations

from yarncli.config.families.family import Family

# Wrappers: (key of the text part, its family if it names none, whether it is always that family).
_WRAPPED: dict[tuple[str, str, bool], str] = {
    ("text_config", "aria_text", True): "aria",
    ("text_config", "cohere2", False): "aya_vision cohere2_vision",
    ("text_config", "cohere_compass_text", True): "cohere_compass",
    ("text_config", "cosmos3_edge_text", True): "cosmos3_edge",
    ("text_config", "deepseek_ocr2_text", True): "deepseek_ocr2",
    ("text_config", "deepseek_v3", False): "kimi_k25",
    ("text_config", "diffusion_gemma_text", True): "diffusion_gemma",
    ("text_config", "dots3_note_text", True): "dots3_note",
    ("text_config", "embedding_gemma2_text", True): "embedding_gemma2",
    ("text_config", "emu3_text_model", True): "emu3",
    ("text_config", "ernie4_5_vl_moe_text", True): "ernie4_5_vl_moe",
    ("text_config", "exaone4", False): "exaone4_5",
    ("text_config", "gemma", False): "paligemma",
    ("text_config", "gemma3_text", False): "shieldgemma2",
    ("text_config", "gemma3_text", True): "gemma3",
    ("text_config", "gemma3n_text", True): "gemma3n",
    ("text_config", "gemma4_text", True): "gemma4",
    ("text_config", "gemma4_unified_text", True): "gemma4_unified",
    ("text_config", "glm4v_moe_text", True): "glm4v_moe",
    ("text_config", "glm4v_text", False): "glm46v glmga",
    ("text_config", "glm4v_text", True): "glm4v",
    ("text_config", "glm_image_text", True): "glm_image",
    ("text_config", "glm_ocr_text", True): "glm_ocr",
    ("text_config", "granite", False): "granite_speech granite_speech_plus",
    ("text_config", "granite4_vision_text", True): "granite4_vision",
    ("text_config", "granite_docling_text", True): "granite_docling",
    ("text_config", "hunyuan_vl_text", True): "hunyuan_vl",
    ("text_config", "hyperclovax", False): "hyperclovax_vision_v2",
    ("text_config", "lfm2", False): "lfm2_vl",
    ("text_config", "lfm3", False): "lfm3_vl",
    ("text_config", "llama", False): (
        "deepseek_vl deepseek_vl_hybrid glmasr idefics3 janus llava llava_next "
        "llava_next_video perception_lm smolvlm video_llava vipllava voxtral"
    ),
    ("text_config", "llama4_text", True): "llama4",
    ("text_config", "minimax_m3_vl_text", True): "minimax_m3_vl",
    ("text_config", "mistral", False): "idefics2 mistral3",
    ("text_config", "mistral_large4_text", True): "mistral_large4",
    ("text_config", "mllama_text_model", True): "mllama",
    ("text_config", "modernbert", False): "modernvbert pe_audio pe_audio_video pe_video",
    ("text_config", "molmo2_text", True): "molmo2",
    ("text_config", "muse_glimmer_text", True): "muse_glimmer",
    ("text_config", "muse_spark_text", True): "muse_spark",
    ("text_config", "nemotron_h", False): "nemo_speechlm nemotron_h_omni",
    ("text_config", "opt", False): "blip-2 instructblip instructblipvideo",
    ("text_config", "paddleocr_vl_text", True): "paddleocr_vl",
    ("text_config", "persimmon", False): "fuyu",
    ("text_config", "qwen2", False): (
        "audioflamingo3 fast_vlm got_ocr2 internvl llava_onevision musicflamingo ovis2 "
        "pp_chart2table qwen2_audio vibevoice vibevoice_asr video_llama_3"
    ),
    ("text_config", "qwen2_5_omni_text", True): "qwen2_5_omni_thinker",
    ("text_config", "qwen2_5_vl_text", True): "qwen2_5_vl",
    ("text_config", "qwen2_vl_text", True): "qwen2_vl",
    ("text_config", "qwen3", False): (
        "fun_asr_nano lighton_ocr moss_transcribe_diarize qianfan_ocr qwen3_asr"
    ),
    ("text_config", "qwen3_5_moe_text", True): "qwen3_5_moe",
    ("text_config", "qwen3_5_text", False): "jev minicpm_ocr minicpmv4_6 minicpmv4_7",
    ("text_config", "qwen3_5_text", True): "qwen3_5",
    ("text_config", "qwen3_omni_moe_text", True): "qwen3_omni_moe_thinker",
    ("text_config", "qwen3_vl_moe_text", True): "qwen3_vl_moe",
    ("text_config", "qwen3_vl_text", False): "cosmos3_omni",
    ("text_config", "qwen3_vl_text", True): "qwen3_vl",
    ("text_config", "qwen4_exp_text", True): "qwen4_exp",
    ("text_config", "step3p5", True): "step3p7",
    ("text_config", "ultrabert", False): "ultravbert",
    ("text_config", "unlimited_ocr_text", True): "unlimited_ocr",
    ("text_config", "voxtral_realtime_text", False): "voxtral_realtime",
    ("thinker_config", "qwen2_5_omni_thinker", True): "qwen2_5_omni",
    ("thinker_config", "qwen3_omni_moe_thinker", True): "qwen3_omni_moe",
    ("vlm_config", "modernvbert", False): "colmodernvbert",
    ("vlm_config", "paligemma", False): "colpali",
    ("vlm_config", "qwen2_vl", False): "colqwen2",
}
# Their old files keep the text part at top level.
_FLAT_TEXT = frozenset({"fuyu", "hunyuan_vl", "paddleocr_vl", "qwen2_5_vl", "qwen2_vl"})
_OLD_TEXT_KEYS = {"unlimited_ocr": {"text_config": "language_config"}}

WRAPPER_ROWS: dict[str, Family] = {
    name: Family(
        text_key=key,
        text_type=kind,
        text_fixed=fixed,
        flat_text=name in _FLAT_TEXT,
        names=_OLD_TEXT_KEYS.get(name, {}),
    )
    for (key, kind, fixed), names in _WRAPPED.items()
    for name in names.split()
}

# Model types of remote code whose modelling file is another family's.
SAME_AS = {"kimi_k2": "deepseek_v3"}

_TABLE = "it rotates by a fixed table that no config field changes"
_PARTS = "it is made of several models with a RoPE each"
_SPEECH = "it decodes audio frames, not text"
_DRAFT = "it drafts for another model and follows that one's positions"

UNSUPPORTED: dict[str, str] = {
    **dict.fromkeys(("gptj", "codegen", "esm", "roformer"), _TABLE),
    **dict.fromkeys(
        (
            "blt",
            "blt_global_transformer",
            "blt_local_decoder",
            "blt_local_encoder",
            "blt_patcher",
            "t5gemma",
            "t5_gemma_module",
            "t5gemma2",
            "t5gemma2_decoder",
            "t5gemma2_encoder",
            "t5gemma2_text",
            "pi0",
        ),
        _PARTS,
    ),
    **dict.fromkeys(
        (
            "csm_depth_decoder_model",
            "dia",
            "dia_decoder",
            "dia_encoder",
            "gradium_phonon_tts",
            "moonshine",
            "moonshine_streaming",
            "pocket_tts",
            "qwen2_5_omni_talker",
            "qwen3_omni_moe_talker_code_predictor",
            "qwen3_omni_moe_talker_text",
        ),
        _SPEECH,
    ),
    **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), _DRAFT),
    "recurrent_gemma": "its attention sees a window only and accepts plain RoPE alone",
}

# The rest of transformers' model types: no RoPE in the text part, or no text part at all.
NO_ROPE = frozenset(
    """
    EvollaModel aimv2 aimv2_text_model aimv2_vision_model albert align align_text_model
    align_vision_model altclip altclip_text_model altclip_vision_model
    audio-spectrogram-transformer audioflamingo3_encoder autoformer bark bart beit bert
    bert-generation big_bird bigbird_pegasus biogpt bit blenderbot blenderbot-small blip
    blip_2_qformer blip_2_vision_model blip_text_model blip_vision_model bloom bridgetower
    bridgetower_text_model bridgetower_vision_model bros camembert canary canary_decoder canine
    chameleon_vqgan chinese_clip chinese_clip_text_model chinese_clip_vision_model chmv2 clap
    clap_audio_model clap_text_model clip clip_text_model clip_vision_model clipseg
    clipseg_text_model clipseg_vision_model clvp clvp_decoder clvp_encoder cohere_asr
    cohere_compass_vision conditional_detr convbert convnext convnextv2 cosmos3_edge_vision
    cpmant ctrl cvt d_fine dab-detr dac data2vec-audio data2vec-text data2vec-vision deberta
    deberta-v2 decision_transformer deepseek_ocr2_encoder deepseek_ocr2_sam_vision_model
    deepseek_ocr2_vision deformable_detr deimv2 deit depth_anything depth_pro detr dinat dinov2
    dinov2_with_registers dinov3_convnext dinov3_vit distilbert donut-swin
    dots3_note_audio_encoder dots3_note_vision_encoder dpr dpt edgetam edgetam_mask_decoder
    edgetam_prompt_encoder edgetam_video edgetam_video_mask_decoder edgetam_video_prompt_encoder
    edgetam_vision_model efficientloftr efficientnet electra emu3_vqgan encodec encoder-decoder
    eomt eomt_dinov3 ernie ernie4_5_vl_moe_vision esmfold2 exaone4_5_vision falcon_mamba
    fastspeech2_conformer fastspeech2_conformer_hifigan fastspeech2_conformer_with_hifigan
    flaubert flava flava_image_codebook flava_image_model flava_multimodal_model
    flava_text_model florence2 florence_vision fnet focalnet fsmt fun_asr_nano_encoder funnel
    gemma3n_audio gemma3n_vision gemma4_audio gemma4_unified_audio gemma4_unified_vision
    gemma4_vision git git_vision_model glm4v_moe_vision glm4v_vision glm5_next glm5_next_text
    glm5_next_vision glm_image_vision glm_image_vqmodel glm_ocr_vision glmasr_encoder glpn
    got_ocr2_vision gpt-sw3 gpt2 gpt_bigcode gpt_neo granite_docling_vision granite_speech5_ctc
    granite_speech5_encoder granite_speech_encoder granite_speech_plus_encoder grounding-dino
    groupvit groupvit_text_model groupvit_vision_model hgnet_v2 hiera higgs_audio_v2_tokenizer
    hubert hunyuan_vl_vision ibert idefics2_perceiver idefics2_vision idefics3_vision
    idefics_perciever idefics_vision ijepa imagegpt informer inkling2 inkling2_text
    inkling2_vision inkling_audio inkling_mm_model inkling_text inkling_vision
    instructblip_qformer instructblip_vision_model instructblipvideo_qformer
    instructblipvideo_vision_model internvl_vision jamba janus_vision_model janus_vqgan
    kimi_k25_vision kimi_linear kosmos-2 kosmos-2.5 kosmos_2_5_text_model
    kosmos_2_5_vision_model kosmos_2_text_model kosmos_2_vision_model lasr_ctc lasr_encoder
    layoutlm layoutlmv2 layoutlmv3 layoutxlm led levit lfm3_vl_vision lightglue lilt
    llama4_vision_model longformer longt5 luke lw_detr lw_detr_vit lxmert m2m_100 mamba mamba2
    marian markuplm mask2former maskformer maskformer-swin mbart megatron-bert metaclip_2
    metaclip_2_text_model metaclip_2_vision_model mgp-str mimi mimi_decoder mimi_encoder
    minicpm_ocr_vision minicpmv4_6_vision minicpmv4_7_vision minimax_m3_vl_vision mlcd
    mlcd_vision_model mllama_vision_model mm-grounding-dino mobilebert mobilenet_v1 mobilenet_v2
    mobilevit mobilevitv2 molmo2_adapter molmo2_vision moonshine_streaming_encoder moshi_depth
    moss_transcribe_diarize_audio mpnet mpt mra mt5 muse_glimmer_vision muse_spark_audio
    muse_spark_vision musicgen musicgen_decoder musicgen_melody musicgen_melody_decoder mvp
    nemotron3_5_asr nemotron3_5_transcribe_asr_audio nemotron3_5_transcribe_audio
    nemotron3_5_transcribe_word_timestamp nemotron3_diarization nemotron3_diarization_audio
    nemotron_asr_streaming nemotron_asr_streaming_encoder nemotron_h neucodec nllb-moe nougat
    nystromformer omdet-turbo oneformer openai-gpt opt ovis2_vision owlv2 owlv2_text_model
    owlv2_vision_model owlvit owlvit_text_model owlvit_vision_model paddleocr_vl_vision
    parakeet_ctc parakeet_encoder parakeet_rnnt parakeet_tdt patchtsmixer patchtst
    pe_audio_encoder pe_audio_video_encoder pe_video_encoder pegasus pegasus_x perceiver
    phi4_multimodal_audio phi4_multimodal_vision pix2struct pix2struct_text_model
    pix2struct_vision_model pixio pixtral plbart pocket_tts_audio_tokenizer
    pocket_tts_audio_tokenizer_decoder pocket_tts_audio_tokenizer_encoder poolformer pop2piano
    pp_chart2table_vision pp_doclayout_v2 pp_doclayout_v3 pp_doclayout_v4 pp_formulanet
    pp_formulanet_text pp_formulanet_vision pp_lcnet pp_lcnet_v3 pp_lcnet_v4 pp_ocrv5_mobile_det
    pp_ocrv5_mobile_rec pp_ocrv5_server_det pp_ocrv5_server_rec pp_ocrv6_medium_det
    pp_ocrv6_small_det pp_ocrv6_small_rec pp_ocrv6_tiny_rec prompt_depth_anything prophetnet pvt
    pvt_v2 qianfan_ocr_vision qwen2_5_omni_audio_encoder qwen2_5_omni_bigvgan qwen2_5_omni_dit
    qwen2_5_omni_token2wav qwen2_5_omni_vision_encoder qwen2_5_vl_vision qwen2_audio_encoder
    qwen2_vl_vision qwen3_5_moe_vision qwen3_5_vision qwen3_asr_encoder
    qwen3_omni_moe_audio_encoder qwen3_omni_moe_vision_encoder qwen3_vl_moe_vision
    qwen3_vl_vision qwen4_exp_vision radio rag reformer regnet rembert resnet rf_detr
    rf_detr_dinov2 roberta roberta-prelayernorm roc_bert rt_detr rt_detr_resnet rt_detr_v2 rwkv
    sam sam2 sam2_hiera_det_model sam2_mask_decoder sam2_prompt_encoder sam2_video
    sam2_video_mask_decoder sam2_video_prompt_encoder sam2_vision_model sam3 sam3_detr_decoder
    sam3_detr_encoder sam3_geometry_encoder sam3_lite_text sam3_lite_text_detr_decoder
    sam3_lite_text_detr_encoder sam3_lite_text_geometry_encoder sam3_lite_text_mask_decoder
    sam3_lite_text_text_model sam3_mask_decoder sam3_tracker sam3_tracker_mask_decoder
    sam3_tracker_prompt_encoder sam3_tracker_video sam3_tracker_video_mask_decoder
    sam3_tracker_video_prompt_encoder sam3_video sam3_vision_model sam3_vit_model sam_hq
    sam_hq_mask_decoder sam_hq_prompt_encoder sam_hq_vision_model sam_mask_decoder
    sam_prompt_encoder sam_vision_model sapiens2 sapiens2_head seamless_m4t seamless_m4t_v2
    segformer seggpt sew sew-d siglip siglip2 siglip2_text_model siglip2_vision_model
    siglip_text_model siglip_vision_model slanet slanext slanext_vision smolvlm_vision
    speech-encoder-decoder speech_to_text speecht5 speecht5_hifigan splinter squeezebert
    step3p5_vision superglue superpoint swiftformer swin swin2sr swinv2 switch_transformers t5
    table-transformer tapas textnet time_series_transformer timesfm timesfm2_5 timesformer
    timm_backbone timm_wrapper tipsv2 tipsv2_dpt tipsv2_text_model tipsv2_vision_model trocr tvp
    udop umt5 unispeech unispeech-sat univnet unlimited_ocr_sam_vision_model
    unlimited_ocr_vision unlimited_ocr_vision_encoder upernet uvdoc uvdoc_backbone
    vibevoice_acoustic_tokenizer vibevoice_acoustic_tokenizer_decoder
    vibevoice_acoustic_tokenizer_encoder vibevoice_diffusion video_llama_3_vision videomae
    videomt videoprism videoprism_text_model videoprism_vision_model vilt vision-encoder-decoder
    vision-text-dual-encoder visual_bert vit vit_mae vit_msn vitdet vitmatte vitpose
    vitpose_backbone vits vivit vjepa2 voxtral_encoder voxtral_realtime_encoder wav2vec2
    wav2vec2-bert wav2vec2-conformer wavlm whisper xclip xclip_text_model xclip_vision_model
    xcodec xcodec2 xglm xlm xlm-roberta xlm-roberta-xl xlnet xlstm xmod yolos yoso zamba
    zoedepth
    """.split()
)
